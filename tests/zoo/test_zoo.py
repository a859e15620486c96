"""Every animal of the zoo: named where it misbehaves, in every placement, or at work."""

from __future__ import annotations

from typing import Any

import animals
import numpy as np
import pytest
from animals import BY_NAME, TABLE, Animal
from coach.core.errors import BadValueError, SettingError
from coach.core.layout import observation_layout
from coach.core.spec import Spec
from coach.environments.checks import finite
from coach.environments.making import EnvironmentSettings
from coach.environments.vector import VectorEnv
from coach.runners.lockstep import LockstepEnvs
from coach.runners.worker import Tolerance
from gymnasium import spaces

CREATURE, SEEDLESS = f"{animals.HOME}:Creature", f"{animals.HOME}:Seedless"
SICK = [animal for animal in TABLE if animal.says]
SOUND = [animal for animal in TABLE if not animal.says]


def named(animal: Animal) -> str:
    return animal.name.replace(" ", "_")


def settings(name: str, **more: Any) -> EnvironmentSettings:
    return EnvironmentSettings(CREATURE, {"name": name}, **more)


def in_threads(name: str, kind: Any = "thread") -> LockstepEnvs:
    spec = Spec(BY_NAME[name].space, spaces.Discrete(2))
    tolerance = Tolerance(0, lambda _: None)
    return LockstepEnvs(settings(name), spec, 2, 2, kind, 1, tolerance)


def play(envs: VectorEnv, steps: int = 20) -> Any:
    obs = envs.reset()
    for _ in range(steps):
        obs = envs.step(np.zeros(envs.num_envs, np.int64)).obs
    return obs


def test_the_zoo_is_large() -> None:
    assert len(TABLE) >= 80
    assert len(BY_NAME) == len(TABLE)


@pytest.mark.parametrize("placed", ["here", "thread"])
@pytest.mark.parametrize("animal", SICK, ids=named)
def test_what_cannot_be_used_is_named(animal: Animal, placed: str) -> None:
    name = animal.name
    envs = settings(name).vector(2, seed=1) if placed == "here" else in_threads(name)
    try:
        with pytest.raises(BadValueError) as caught:
            play(envs)
    finally:
        envs.close()
    message = str(caught.value)
    for part in (*animal.says, CREATURE, "environment 0", "episode 0", "step"):
        assert part in message
    assert caught.value.remedy
    assert caught.value.exit_status not in (0, 1, 2)


@pytest.mark.parametrize("animal", SOUND, ids=named)
def test_what_loses_nothing_works(animal: Animal) -> None:
    envs = settings(animal.name).vector(2, seed=1)
    obs = play(envs)
    if animal.seen is not None:
        assert obs.tolist() == [animal.seen, animal.seen]
    texts = [notice.text for notice in envs.notices()]
    assert len(texts) == bool(animal.warns)  # once, for whatever number of environments and steps
    assert animal.warns in "".join(texts)
    assert envs.notices() == []
    envs.close()


def test_one_process_serves_the_sick_as_well() -> None:
    envs = in_threads("nan in a key", "process")
    try:
        with pytest.raises(BadValueError, match=r"environment 0, episode 0, step 4.*\['arm'\]"):
            play(envs)
    finally:
        envs.close()


def test_threads_pass_on_what_is_said_about_bounds() -> None:
    envs = in_threads("outside its bounds")
    play(envs)
    assert {notice.text.split(" is ")[0] for notice in envs.notices()} == {
        f"{CREATURE}: observation"
    }
    envs.close()


@pytest.mark.parametrize("wrappers", [[], [{"TimeLimit": {"max_episode_steps": 5}}]])
def test_a_reset_without_seed_is_refused(wrappers: list[Any]) -> None:
    env = EnvironmentSettings(SEEDLESS, {"name": "list"}, wrappers)
    with pytest.raises(BadValueError, match=r"takes no argument '\w+'.*\n.*seed=None, options"):
        env.vector(1, seed=1).reset()


def test_a_wrapper_does_not_hide_an_old_step() -> None:
    env = settings("old step", max_episode_steps=5).vector(1, seed=1)
    with pytest.raises(BadValueError, match=r"(?s)step\(\).*unpack.*terminated, truncated"):
        play(env)


@pytest.mark.parametrize("name", ["None as reward", "rewards of two players", "nan reward"])
def test_measurements_leave_it_to_the_check_to_refuse_rewards(name: str) -> None:
    measured = "coach.environments.measured:AddMeasurements"
    env = settings(name, wrappers=[{measured: {"reward_scale": 0.5}}]).vector(1, seed=1)
    with pytest.raises(BadValueError, match="the reward is"):
        play(env)


def test_keys_must_be_text() -> None:
    space = spaces.Dict({0: spaces.Discrete(3), 1: spaces.Box(0, 1, (2,), np.float32)})
    with pytest.raises(SettingError, match=r"key 0 .*int"):
        observation_layout(space)


def test_an_observation_of_many_numbers_is_checked_to_the_last() -> None:
    array = np.ones(20_000, np.float32)
    fine = finite(array)
    for place in (0, 8_191, 8_192, 19_999):
        for bad in (np.nan, np.inf, -np.inf):
            assert fine()
            array[place] = bad
            assert not fine()
            array[place] = 3e38


def test_bounds_are_not_missed_where_only_ends_of_episodes_lie_outside() -> None:
    late = settings("late outsider").vector(1, seed=1)
    late.reset()
    for _ in range(300):
        late.step(np.zeros(1, np.int64))
    (notice,) = late.notices()
    assert "observation is 4.0 at index [0]" in notice.text
    late.close()
