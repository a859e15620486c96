"""Native vector environments: whatever their habits, steps mean what they mean elsewhere."""

from __future__ import annotations

import math
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.core.errors import BadValueError, SettingError
from coach.core.schema import build
from coach.environments.lanes import GymnasiumLanes
from coach.environments.making import EnvironmentSettings
from coach.environments.native import NativeEnv, NativeEnvs
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

LENGTHS = (2, 3)
MODES = list(AutoresetMode)


class Counting(gym.vector.VectorEnv[Any, Any, Any]):
    """Two lanes that tell their step and their episode; pays the action plus one.

    Lane 0 ends after two steps, terminated, and lane 1 after three, truncated. Written after
    Gymnasium's description of the three modes.

    Args:
        mode: when the next episode begins.
        masks: whether some lanes can be reset while the others wait.
    """

    def __init__(self, mode: AutoresetMode, masks: bool = True) -> None:
        self.metadata = {"autoreset_mode": mode}
        self.mode, self.masks, self.num_envs = mode, masks, len(LENGTHS)
        self.single_observation_space = spaces.Box(-1, 1_000, (2,), np.float64)
        self.single_action_space = spaces.Discrete(3)
        self.action_space = spaces.MultiDiscrete([3, 3])
        self.wait = np.zeros(2, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = np.ones(2, bool)
        if options is not None and self.masks:
            mask = options["reset_mask"]
        if seed is not None:
            self.steps, self.episode = np.zeros(2), np.full(2, seed % 1_000) - 1
        self._begin(mask)
        return self._obs(), {}

    def step(self, actions: Any) -> Any:
        reward, info = actions + 1.0, {}
        begins = self.wait & (self.mode is AutoresetMode.NEXT_STEP)
        assert self.mode is not AutoresetMode.DISABLED or not self.wait.any()
        self.steps += ~begins
        self._begin(begins)
        reward[begins] = 0.0
        over = (self.steps == LENGTHS) & ~begins
        self.wait = over.copy()
        terminated, truncated = over & [True, False], over & [False, True]
        if over.any() and self.mode is AutoresetMode.SAME_STEP:
            info["final_obs"] = np.where(over[:, None], self._obs(), -1)
            self._begin(over)
        return self._obs(), reward, terminated, truncated, info

    def _begin(self, mask: Any) -> None:
        self.steps[mask], self.wait[mask] = 0, False
        self.episode[mask] += 1

    def _obs(self) -> Any:
        return np.stack([self.steps, self.episode], axis=1)


class Single(gym.Env[Any, Any]):
    """The same with one lane, and a Dict for observation."""

    observation_space = spaces.Dict(
        {"step": spaces.Box(0, 9, (1,), np.float32), "episode": spaces.Discrete(9)}
    )
    action_space = spaces.Discrete(3)

    def __init__(self, lane: int) -> None:
        self.lane, self.episode = lane, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        self.episode += 1
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        over = self.steps == LENGTHS[self.lane]
        return self._obs(), action + 1.0, over and self.lane == 0, over and self.lane == 1, {}

    def _obs(self) -> Any:
        return {"step": np.array([self.steps], np.float32), "episode": self.episode}


# Per step: next_obs and obs of both lanes as (step, episode).
JOURNEY = [
    ([(1, 0), (1, 0)], [(1, 0), (1, 0)]),
    ([(2, 0), (2, 0)], [(0, 1), (2, 0)]),
    ([(1, 1), (3, 0)], [(1, 1), (0, 1)]),
    ([(2, 1), (1, 1)], [(0, 2), (1, 1)]),
    ([(1, 2), (2, 1)], [(1, 2), (2, 1)]),
    ([(2, 2), (3, 1)], [(0, 3), (0, 2)]),
]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_tells_the_same_story(mode: AutoresetMode) -> None:
    envs = NativeEnvs(GymnasiumLanes(Counting(mode)), seed=0, first_env=4)
    base = envs.reset()[0, 1]
    told = []
    for number, (led_to, then) in enumerate(JOURNEY):
        step = envs.step(np.array([number % 3, 2]))
        assert (step.next_obs - [0, base]).tolist() == [list(pair) for pair in led_to]
        assert (step.obs - [0, base]).tolist() == [list(pair) for pair in then]
        assert step.reward.tolist() == [number % 3 + 1, 3], "no action is ignored"
        assert step.terminated.tolist() == [led_to[0][0] == 2, False]
        assert step.truncated.tolist() == [False, led_to[1][0] == 3]
        told += [(episode.env_id, episode.value, episode.length) for episode in step.episodes]
    assert told == [(4, 3, 2), (5, 9, 3), (4, 4, 2), (4, 5, 2), (5, 9, 3)]
    assert envs.episode == [3, 2]


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_own_vector_environment_tells_it_too(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([lambda: Single(0), lambda: Single(1)], autoreset_mode=mode)
    lanes = GymnasiumLanes(env)
    for single in env.envs:
        single.unwrapped.episode = -1  # type: ignore[attr-defined]
    envs = NativeEnvs(lanes, seed=0)
    envs.reset()
    for led_to, then in JOURNEY:
        step = envs.step(np.array([0, 0]))
        for obs, wanted in ((step.next_obs, led_to), (step.obs, then)):
            assert list(zip(obs["step"][:, 0], obs["episode"])) == wanted


def test_what_can_begin_episodes_only_too_late_is_refused() -> None:
    late = Counting(AutoresetMode.NEXT_STEP, masks=False)
    with pytest.raises(SettingError, match=r"environment\.backend.*Counting(.|\n)*python"):
        GymnasiumLanes(late)


def cartpole(num_envs: int = 5, seed: int = 0, **settings: Any) -> NativeEnvs:
    made = EnvironmentSettings("CartPole-v1", backend="gymnasium", **settings)
    envs = made.vector(num_envs, seed)
    assert isinstance(envs, NativeEnvs)
    return envs


def moves(num_envs: int = 5, count: int = 300, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(2, size=(count, num_envs))


def follow(envs: Any) -> int:
    """Hold every transition of a CartPole against Gymnasium's single one; returns the ends."""
    single: Any = gym.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    obs, lengths, ends = envs.reset().copy(), [0] * envs.num_envs, 0
    for action in moves(envs.num_envs):
        step = envs.step(action)
        for i in range(envs.num_envs):
            single.state, single.steps_beyond_terminated = tuple(map(float, obs[i])), None
            wanted, reward, terminated, *_ = single.step(int(action[i]))
            np.testing.assert_allclose(step.next_obs[i], wanted, atol=1e-5)
            assert (step.reward[i], step.terminated[i]) == (reward, terminated)
            assert not step.truncated[i]
            lengths[i] += 1
            if terminated:
                assert (abs(step.obs[i]) <= 0.05).all()
                assert (i, lengths[i], lengths[i]) in {
                    (e.env_id, e.value, e.length) for e in step.episodes
                }
                lengths[i], ends = 0, ends + 1
            else:
                assert np.array_equal(step.obs[i], step.next_obs[i])
        obs = step.obs.copy()
    return ends


@pytest.mark.parametrize("num_envs", [1, 5])
def test_gymnasiums_cartpole_obeys_the_laws_of_the_single_one(num_envs: int) -> None:
    assert follow(cartpole(num_envs)) > 5 * num_envs


def test_a_time_limit_reaches_the_native_environment() -> None:
    envs = cartpole(3, max_episode_steps=4)
    envs.reset()
    for _ in range(3):
        assert not envs.step(np.array([0, 1, 0])).truncated.any()
    step = envs.step(np.array([1, 0, 1]))
    assert step.truncated.all()
    assert not step.terminated.any()
    assert [episode.length for episode in step.episodes] == [4, 4, 4]


def test_a_run_is_a_function_of_its_seed_and_actions() -> None:
    def run(seed: int) -> bytes:
        envs = cartpole(seed=seed)
        seen = [envs.reset().tobytes()]
        seen += [envs.step(action).obs.tobytes() for action in moves(count=60)]
        return b"".join(seen)

    assert run(1) == run(1) != run(2)


def test_fresh_episodes_begin_after_an_interruption() -> None:
    first, second = cartpole(), cartpole()
    begun = first.reset().copy()
    for action in moves(count=60):
        first.step(action)
    state = first.state_dict()
    assert set(state) == {"episode"}
    obs = second.load_state_dict(state)
    assert not NativeEnvs.restorable
    assert second.episode == [number + 1 for number in first.episode]
    assert not np.array_equal(obs, begun)
    assert [e.length for action in moves(count=60) for e in second.step(action).episodes]


def test_outcomes_are_aligned_and_in_the_stored_types() -> None:
    envs = NativeEnvs(GymnasiumLanes(Counting(AutoresetMode.SAME_STEP)), seed=0)
    assert envs.reset().dtype == np.float32
    step = envs.step(np.array([0, 0]))
    assert (step.reward.dtype, step.terminated.dtype) == (np.float32, np.bool_)
    assert torch.from_numpy(step.obs).data_ptr() % 64 == 0


def test_one_native_environment_has_the_same_spaces() -> None:
    settings = EnvironmentSettings("CartPole-v1", backend="gymnasium")
    env = settings.make()
    assert isinstance(env, NativeEnv)
    assert env.observation_space == settings.vector(2, 0).spec.observation
    assert env.action_space == settings.vector(2, 0).spec.action
    first, _ = env.reset(seed=3)
    assert env.observation_space.contains(first)
    assert env.step(1)[1:] == (1.0, False, False, {})
    assert not np.array_equal(env.reset()[0], first)
    assert np.array_equal(env.reset(seed=3)[0], first)


def test_the_python_backend_steps_one_by_one() -> None:
    envs = EnvironmentSettings("CartPole-v1").vector(3, seed=1, first_env=2)
    assert type(envs).__name__ == "SerialEnvs"
    assert getattr(envs, "restorable", True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"id": "Pendulum-v1", "backend": "gymnasium"}, ["environment.backend", "Pendulum-v1"]),
        ({"id": "corners", "backend": "gymnasium"}, ["environment.backend", "corners", "Remove"]),
        ({"id": "corners", "backend": "envpool"}, ["environment.backend", "corners"]),
        ({"id": "CartPoel-v1", "backend": "gymnasium"}, ["environment.id", "'CartPole-v1'"]),
        (
            {"id": "CartPole-v1", "backend": "gymnasium", "kwargs": {"sutton": 1}},
            ["sutton", "environment.kwargs"],
        ),
        ({"id": "CartPole-v1", "backend": "native"}, ["environment.backend", "'envpool'"]),
        (
            {"id": "CartPole-v1", "backend": "gymnasium", "wrappers": ["FlattenObservation"]},
            ["environment.wrappers", "environment.kwargs", "Remove environment.backend"],
        ),
    ],
)
def test_what_no_backend_serves_is_explained(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build(EnvironmentSettings, settings, "environment").value.make()
    for word in words:
        assert word in str(raised.value)


def test_a_missing_envpool_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(SettingError, match=r"pip install 'coach-rl\[envpool\]'"):
        EnvironmentSettings("CartPole-v1", backend="envpool").make()


class TestAle:
    """The vector environment that ale_py brings."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("ale_py")

    def settings(self, **kwargs: Any) -> EnvironmentSettings:
        # Some six steps until a time limit, and no other end.
        kwargs = {"max_num_frames_per_episode": 60, "noop_max": 20, **kwargs}
        return EnvironmentSettings("ALE/Pong-v5", backend="gymnasium", kwargs=kwargs)

    @pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
    def test_final_observations_and_new_beginnings(self, mode: str) -> None:
        envs = self.settings(autoreset_mode=mode).vector(3, seed=1)
        obs, ends = envs.reset().copy(), 0
        for action in np.random.default_rng(0).integers(6, size=(40, 3)):
            step = envs.step(action)
            for i in range(3):
                # The three younger pictures move up, whether or not the episode ends.
                assert np.array_equal(step.next_obs[i, :3], obs[i, 1:])
                if step.truncated[i]:
                    ends += 1
                    assert not np.array_equal(step.obs[i], step.next_obs[i])
            assert not step.terminated.any()
            assert len(step.episodes) == step.truncated.sum()
            obs = step.obs.copy()
        assert ends >= 6

    def test_threads_change_nothing(self) -> None:
        def run(threads: int) -> list[bytes]:
            envs = self.settings().vector(3, seed=1, threads=threads)
            envs.reset()
            rng = np.random.default_rng(0)
            return [envs.step(rng.integers(6, size=3)).obs.tobytes() for _ in range(30)]

        assert run(1) == run(2)

    def test_limits_in_steps_and_pictures_are_refused(self) -> None:
        limited = EnvironmentSettings("ALE/Pong-v5", backend="gymnasium", max_episode_steps=9)
        with pytest.raises(SettingError, match="max_num_frames_per_episode"):
            limited.vector(2, 0)
        with pytest.raises(SettingError, match="no pictures"):
            self.settings().make(render_mode="rgb_array")


class TestEnvPool:
    """EnvPool, where it is installed."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("envpool")

    @pytest.mark.parametrize("num_envs", [1, 5])
    def test_its_cartpole_obeys_gymnasiums_laws(self, num_envs: int) -> None:
        envs = EnvironmentSettings("CartPole-v1", backend="envpool").vector(num_envs, 0, threads=2)
        assert follow(envs) > 5 * num_envs

    def test_a_run_is_a_function_of_its_seed_and_actions(self) -> None:
        def run(seed: int, threads: int) -> list[bytes]:
            envs = EnvironmentSettings("CartPole-v1", backend="envpool").vector(
                4, seed, threads=threads
            )
            first = envs.reset()
            assert len({row.tobytes() for row in first}) == 4
            return [envs.step(action).obs.tobytes() for action in moves(4)]

        assert run(1, 1) == run(1, 2) != run(2, 1)

    def test_a_time_limit_is_truncation(self) -> None:
        settings = EnvironmentSettings("Pendulum-v1", backend="envpool", max_episode_steps=7)
        envs = settings.vector(3, 0)
        envs.reset()
        for number in range(1, 22):
            step = envs.step(np.zeros((3, 1), np.float32))
            assert step.truncated.all() == step.truncated.any() == (number % 7 == 0)
            assert not step.terminated.any()
            assert (step.reward < 0).all()
            speed = math.sqrt(float((step.obs[:, :2] ** 2).sum(1).mean()))
            assert speed == pytest.approx(1, abs=1e-4)

    def test_pong_moves_its_pictures_up(self) -> None:
        settings = EnvironmentSettings("Pong-v5", backend="envpool", max_episode_steps=6)
        envs = settings.vector(2, 0)
        obs, ends = envs.reset().copy(), 0
        for _ in range(20):
            step = envs.step(np.array([2, 3]))
            assert np.array_equal(step.next_obs[:, :3], obs[:, 1:])
            ends += len(step.episodes)
            obs = step.obs.copy()
        assert ends == 6

    def test_single_environments_and_their_mistakes(self) -> None:
        env = EnvironmentSettings("CartPole-v1", backend="envpool").make()
        first, _ = env.reset(seed=3)
        assert env.observation_space.contains(first)
        assert not env.step(1)[2]
        assert np.array_equal(env.reset(seed=3)[0], first)
        with pytest.raises(SettingError, match=r"environment\.id(.|\n)*'Pong-v5'"):
            EnvironmentSettings("ALE/Pong-v5", backend="envpool").make()
        with pytest.raises(SettingError, match=r"foo(.|\n)*environment\.kwargs"):
            EnvironmentSettings("CartPole-v1", {"foo": 1}, backend="envpool").make()


class Spoiled(GymnasiumLanes):
    """Lanes whose third step has a bad value in lane 1."""

    def __init__(self, what: str) -> None:
        super().__init__(Counting(AutoresetMode.DISABLED))
        self.what, self.taken = what, 0

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated = super().step(action)
        self.taken += 1
        if self.taken == 3:
            if self.what == "observation":
                obs[1, 0] = np.nan
            elif self.what == "reward":
                reward[1] = np.inf
            elif self.what == "shape":
                obs = obs[:, :1]
            elif self.what == "text":
                reward = np.array(["1", "2"])
            else:
                terminated = np.array([0, 2])
        return obs, reward, terminated, truncated


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("observation", r"environment 6, episode 0, step 3\): observation is nan at index \[0\]"),
        ("reward", r"environment 6, episode 0, step 3\): the reward is inf"),
        ("shape", r"observation is of shape \(2, 1\) instead of \(2, 2\)"),
        ("text", r"the reward is .*not a number"),
        ("flag", r"environment 6, episode 0, step 3\): terminated is 2"),
    ],
)
def test_bad_values_of_lanes_are_named(what: str, words: str) -> None:
    envs = NativeEnvs(Spoiled(what), seed=0, first_env=5, name="counting")
    envs.reset()
    with pytest.raises(BadValueError, match=f"counting returned a bad value in step.*{words}"):
        several(envs, 3)


def several(envs: NativeEnvs, steps: int) -> None:
    for _ in range(steps):
        envs.step(np.zeros(2, np.int64))


def test_lanes_are_told_once_outside_their_bounds() -> None:
    class Far(GymnasiumLanes):
        def step(self, action: Any) -> Any:
            obs, *rest = super().step(action)
            return (obs - 5, *rest)

    envs = NativeEnvs(Far(Counting(AutoresetMode.DISABLED)), seed=0)
    envs.reset()
    several(envs, 2)
    (notice,) = envs.notices()
    assert "outside the bounds -1.0 to 1000.0" in notice.text
