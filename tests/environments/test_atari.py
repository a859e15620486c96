"""Our own Atari environment: what it shows, what it pays, and that episodes can be repeated."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from coach.core.errors import SettingError
from coach.environments.making import EnvironmentSettings
from coach.environments.serial import SerialEnvs

ale_py = pytest.importorskip("ale_py")
cv2 = pytest.importorskip("cv2")

from coach.environments.atari import Atari  # noqa: E402


def plain(game: str = "pong", **settings: Any) -> Atari:
    """Nothing random, nothing pressed before the first observation."""
    return Atari(game, **{"noop_max": 0, "fire_reset": False, **settings})


def gymnasiums(game: str, stack: int = 4) -> gym.Env[Any, Any]:
    gym.register_envs(ale_py)
    env = gym.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0)
    return gym.wrappers.FrameStackObservation(
        gym.wrappers.AtariPreprocessing(env, noop_max=0), stack
    )


def actions(env: gym.Env[Any, Any], count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(env.action_space.n, size=count).tolist()  # type: ignore[attr-defined, no-any-return]


def played(env: Atari, seed: int, count: int) -> list[bytes]:
    """What an episode shows and pays, step by step."""
    seen = [env.reset(seed=seed)[0].tobytes()]
    for action in actions(env, count, seed):
        obs, *rest, _ = env.step(action)
        seen.append(obs.tobytes() + repr(rest).encode())
        if rest[1] or rest[2]:
            break
    return seen


@pytest.mark.parametrize("game", ["Pong", "Breakout", "MsPacman"])
def test_pictures_and_rewards_are_gymnasiums(game: str) -> None:
    ours, theirs = plain(game), gymnasiums(game)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert np.array_equal(ours.reset(seed=0)[0], theirs.reset(seed=0)[0])
    for action in actions(ours, 200):
        obs, reward, terminated, truncated, _ = ours.step(action)
        wanted, their_reward, their_end, *_ = theirs.step(action)
        assert (reward, terminated, truncated) == (their_reward, their_end, False)
        if terminated:  # Gymnasium stops fetching there, and shows older frames
            break
        assert np.array_equal(obs, wanted)


def test_a_picture_is_the_brighter_of_the_last_two_frames() -> None:
    env, raw = plain("breakout"), ale_py.ALEInterface()
    raw.setInt("random_seed", 0)
    raw.setFloat("repeat_action_probability", 0.0)
    raw.loadROM(ale_py.roms.get_rom_path("breakout"))
    raw.reset_game()
    env.reset(seed=0)
    for _ in range(5):
        obs, *_ = env.step(1)
        frames = []
        for _ in range(4):
            raw.act(1)
            frames.append(raw.getScreenGrayscale())
        brighter = np.maximum(frames[2], frames[3])
        assert np.array_equal(obs[-1], cv2.resize(brighter, (84, 84), interpolation=cv2.INTER_AREA))
    single = plain("breakout", frame_skip=1)
    single.reset(seed=0)
    raw.reset_game()
    raw.act(0)
    wanted = cv2.resize(raw.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA)
    assert np.array_equal(single.step(0)[0][-1], wanted), "without skipping there is only one"


def test_pictures_move_up_the_stack_and_stay_as_they_were() -> None:
    env = plain(stack=3)
    first, _ = env.reset(seed=0)
    assert first.shape == (3, 84, 84)
    assert (first == first[-1]).all(), "an episode begins with its first picture repeated"
    seen = [first[-1].copy()]
    kept = [first]
    for action in actions(env, 8):
        obs, *_ = env.step(action)
        seen.append(obs[-1].copy())
        kept.append(obs)
    for number, obs in enumerate(kept):
        for place in range(3):
            assert np.array_equal(obs[place], seen[max(0, number + place - 2)])


@pytest.mark.parametrize("sticky", [0.0, 0.25])
@pytest.mark.parametrize("game", ["pong", "assault", "qbert"])
def test_an_episode_is_a_function_of_its_seed_and_actions(game: str, sticky: float) -> None:
    """ALE's own reset keeps something of the last game in assault; restoring alone, in qbert."""
    env = Atari(game, sticky=sticky)
    first, other = played(env, 3, 120), played(env, 4, 150)
    assert played(env, 3, 120) == first != other
    assert played(Atari(game, sticky=sticky), 3, 120) == first


def test_idle_frames_and_sticky_actions_come_from_the_seed() -> None:
    def second_picture(env: Atari, seed: int) -> bytes:
        env.reset(seed=seed)
        for action in (2, 3, 2, 3, 2, 3):
            obs, *_ = env.step(action)
        return obs.tobytes()

    idle, sticky = Atari(), plain(sticky=0.5)
    assert len({second_picture(idle, seed) for seed in range(8)}) > 1
    assert len({second_picture(sticky, seed) for seed in range(8)}) > 1
    assert len({second_picture(plain(), seed) for seed in range(8)}) == 1


def test_always_sticky_means_that_nothing_ever_changes() -> None:
    stuck, idle = plain(sticky=1.0), plain()
    stuck.reset(seed=0), idle.reset(seed=0)
    for _ in range(20):
        assert np.array_equal(stuck.step(2)[0], idle.step(0)[0])


def test_rewards_are_the_score_or_its_sign() -> None:
    score, sign = plain("ms_pacman"), plain("ms_pacman", clip_rewards=True)
    score.reset(seed=0), sign.reset(seed=0)
    pairs = {(score.step(action)[1], sign.step(action)[1]) for action in actions(score, 150)}
    assert (10.0, 1.0) in pairs
    assert all(clipped == np.sign(value) for value, clipped in pairs)
    paid = set()
    pong = plain(clip_rewards=True)
    pong.reset(seed=0)
    for _ in range(100):
        paid.add(pong.step(0)[1])
    assert paid == {0.0, -1.0}


def test_the_frame_limit_cuts_off_but_does_not_terminate() -> None:
    env = Atari(max_episode_frames=80, noop_max=0)  # FIRE takes 4 frames
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(19)]
    assert ends == [(False, False)] * 18 + [(False, True)]


def ends(env: Atari, most: int = 3_000) -> tuple[int, bool, bool]:
    env.reset(seed=0)
    for number in range(1, most):
        _, _, terminated, truncated, _ = env.step(0 if number % 20 else 1)
        if terminated or truncated:
            return number, terminated, truncated
    return most, False, False


def test_a_lost_life_ends_the_episode_only_if_asked_for() -> None:
    game, life = ends(plain("breakout")), ends(plain("breakout", episodic_life=True))
    assert game[1:] == life[1:] == (True, False)
    assert life[0] * 3 < game[0], "there are five lives"


def episodes(env: Atari, count: int) -> list[tuple[bytes, int]]:
    """First picture and length of so many episodes, played alike."""
    seen = []
    for number in range(count):
        first = env.reset(seed=number)[0][-1].tobytes()
        length, over = 0, False
        while not over:
            length += 1
            _, _, terminated, truncated, _ = env.step(3 if length % 5 else 2)
            over = terminated or truncated
        seen.append((first, length))
    return seen


def test_the_game_goes_on_after_a_lost_life() -> None:
    """Breakout has five lives, which the picture counts down; the sixth episode is a new game."""
    env = Atari("breakout", noop_max=0, episodic_life=True)
    seen = episodes(env, 10)
    assert len({first for first, _ in seen[:5]}) == 5
    assert seen[5:] == seen[:5]


def test_a_game_cut_off_by_its_time_limit_begins_anew() -> None:
    """Waiting loses a life in step 23, and frames of both lives count."""
    env, fresh = (
        Atari("breakout", noop_max=0, episodic_life=True, max_episode_frames=120) for _ in "ab"
    )
    env.reset(seed=0)
    for terminated, truncated in ((True, False), (False, True)):
        before = env.reset(seed=1)[0]
        ended = next(e for e in (env.step(0)[2:4] for _ in range(40)) if any(e))
        assert ended == (terminated, truncated)
    assert not np.array_equal(before, fresh.reset(seed=1)[0]), "it began in the second life"
    assert np.array_equal(env.reset(seed=1)[0], fresh.reset(seed=1)[0])


@pytest.mark.parametrize("life", [False, True])
def test_an_agent_that_never_fires_plays_to_the_end(life: bool) -> None:
    env, length, left = Atari("breakout", noop_max=0, episodic_life=life), 0, 5 if life else 1
    env.reset(seed=0)
    while left and length < 400:
        _, _, terminated, truncated, _ = env.step(0)
        length += 1
        if terminated or truncated:
            left -= 1
            env.reset(seed=left)
    assert not left


def test_fire_is_pressed_until_a_game_that_pauses_heeds_it() -> None:
    """Gopher waits for FIRE after a lost life, but not before some seconds have passed."""

    def moves_on(**settings: Any) -> bool:
        env = Atari("gopher", noop_max=0, **settings)
        env.reset(seed=0)
        rng = np.random.default_rng(3)
        while not env.continues_at_reset:
            env.step(int(rng.integers(env.action_space.n)))  # type: ignore[attr-defined]
        env.reset(seed=1)
        pictures = [env.step(0)[0][-1] for _ in range(160)]
        return any(not np.array_equal(pictures[110], picture) for picture in pictures[111:])

    assert moves_on(episodic_life=True)
    assert not moves_on(episodic_life=True, fire_reset=False), "the game waits"


def test_fire_is_pressed_where_there_is_fire() -> None:
    def flies(env: Atari) -> bool:
        env.reset(seed=0)
        pictures = [env.step(0)[0][-1] for _ in range(12)]
        return any(not np.array_equal(pictures[6], picture) for picture in pictures[7:])

    assert flies(Atari("breakout", noop_max=0))
    assert not flies(plain("breakout")), "the ball waits for FIRE"
    Atari("freeway").reset(seed=0)  # has no FIRE


def test_all_actions_or_those_that_matter() -> None:
    assert plain("pong").action_space.n == 6  # type: ignore[attr-defined]
    assert plain("pong", full_action_space=True).action_space.n == 18  # type: ignore[attr-defined]


@pytest.mark.parametrize("game", ["ms_pacman", "MsPacman", "mspacman"])
def test_games_by_any_spelling(game: str) -> None:
    assert plain(game).action_space.n == 9  # type: ignore[attr-defined]


def test_pictures_for_people() -> None:
    env = EnvironmentSettings("atari").make(render_mode="rgb_array")
    env.reset(seed=0)
    picture: Any = env.render()
    assert picture.shape == (210, 160, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize(("game", "steps"), [("assault", 320), ("breakout", 100)])
def test_it_comes_back_in_the_middle_of_a_game(game: str, steps: int) -> None:
    """Also in a later life than the first, which began in the middle of a game."""

    def envs() -> SerialEnvs:
        return SerialEnvs(lambda: Atari(game, sticky=0.25, episodic_life=True), 2, seed=5)

    first, second, third = envs(), envs(), envs()
    first.reset()
    moves = np.random.default_rng(0).integers(4, size=(steps + 60, 2))
    for move in moves[:steps]:
        first.step(move)
    assert max(first.episode) > 0
    second.load_state_dict(first.state_dict())
    third.load_state_dict(second.state_dict())
    assert first.episode == second.episode == third.episode
    for move in moves[steps:]:
        one, *others = (envs.step(move) for envs in (first, second, third))
        for other in others:
            assert np.array_equal(one.next_obs, other.next_obs)
            assert np.array_equal(one.obs, other.obs)
            assert one.episodes == other.episodes


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"game": "pnog"}, ["environment.kwargs.game", "'pong'"]),
        ({"game": "combat"}, ["environment.kwargs.game", "alone"]),
        ({"sticky": 1.5}, ["environment.kwargs.sticky"]),
        ({"frame_skip": 0}, ["environment.kwargs.frame_skip"]),
        ({"frameskip": 4}, ["environment.kwargs.frameskip", "'frame_skip'"]),
    ],
)
def test_settings_that_cannot_be_are_refused(kwargs: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        EnvironmentSettings("atari", kwargs=kwargs).make()
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("module", ["ale_py", "cv2"])
def test_a_missing_package_gives_the_command(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingError, match=r"pip install 'coach-rl\[atari\]'"):
        EnvironmentSettings("atari").make()
