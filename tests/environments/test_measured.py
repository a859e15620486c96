"""Measurements beside the observation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from coach.core.errors import CoachError, SettingError
from coach.environments.making import EnvironmentSettings
from coach.environments.measured import AddMeasurements
from coach.environments.serial import SerialEnvs
from gymnasium import spaces

WRAPPER = "coach.environments.measured:AddMeasurements"


class Purse(gym.Env[Any, Any]):
    """Pays 2 and tells a growing number in ``info``, but not in every step."""

    observation_space: spaces.Space[Any] = spaces.Box(-9, 9, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.array([0, 1, 2], np.float32), {"weight": 5}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        info = {"health": np.int64(10 * self.steps)} if self.steps != 2 else {}
        obs = np.array([self.steps, self.steps + 1, self.steps + 2], np.float32)
        return obs, 2.0, self.steps == 4, False, info


class Boxes(Purse):
    """The same with a Dict as observation."""

    observation_space = spaces.Dict({"left": Purse.observation_space, "goal": spaces.Discrete(2)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(seed=seed)
        return {"left": obs, "goal": 1}, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, *rest = super().step(action)
        return {"left": obs, "goal": 1}, *rest  # type: ignore[return-value]


def measured(env: gym.Env[Any, Any], steps: int = 3) -> list[list[float]]:
    """Measurements from a reset on."""
    obs, _ = env.reset(seed=0)
    found = [obs["measurements"].tolist()]
    for _ in range(steps):
        obs, *_ = env.step(0)
        assert env.observation_space.contains(obs)
        assert obs["measurements"].dtype == np.float32
        found.append(obs["measurements"].tolist())
    return found


def test_the_reward_so_far_begins_anew_with_every_episode() -> None:
    env = AddMeasurements(Purse(), reward_scale=0.5)
    assert measured(env) == [[0], [1], [2], [3]]
    assert measured(env) == [[0], [1], [2], [3]]


def test_rewards_entries_and_info_come_in_this_order() -> None:
    env = AddMeasurements(Purse(), entries=[2, 0], info=["health", "weight"])
    # Health is not told at the start and not in step 2; weight only at the start.
    assert measured(env) == [
        [0, 2, 0, 0, 5],
        [2, 3, 1, 10, 5],
        [4, 4, 2, 10, 5],
        [6, 5, 3, 30, 5],
    ]
    assert measured(env, 0) == [[0, 2, 0, 0, 5]]


def test_the_reward_may_be_left_out() -> None:
    assert measured(AddMeasurements(Purse(), None, [1]), 1) == [[1], [2]]


def test_the_observation_itself_is_left_as_it_is() -> None:
    obs, _ = AddMeasurements(Purse()).reset()
    assert list(obs) == ["observation", "measurements"]
    assert obs["observation"].tolist() == [0, 1, 2]


def test_a_dict_keeps_its_entries() -> None:
    env = AddMeasurements(Boxes(), info=["health"])
    assert isinstance(env.observation_space, spaces.Dict)
    assert list(env.observation_space.spaces) == ["goal", "left", "measurements"]
    assert measured(env, 1) == [[0, 0], [2, 10]]
    assert env.reset()[0]["goal"] == 1


def test_a_number_that_info_never_has_is_missed_at_the_first_step() -> None:
    env = AddMeasurements(Purse(), info=["helth"])
    env.reset()
    with pytest.raises(CoachError, match=r"'helth'.*\['health'\]"):
        env.step(0)


@pytest.mark.parametrize(
    ("env", "arguments", "words"),
    [
        ("CartPole-v1", {"reward_scale": None}, "nothing to measure"),
        ("CartPole-v1", {"entries": [4]}, "does not fit 4 numbers"),
        ("CartPole-v1", {"entries": [-1]}, "does not fit 4 numbers"),
        ("FrozenLake-v1", {"entries": [0]}, "in a vector"),
        ("CartPole-v1", {"reward": 1}, "unexpected keyword"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    env: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        EnvironmentSettings(env, wrappers=[{WRAPPER: arguments}]).make()


def test_measuring_twice_is_refused() -> None:
    with pytest.raises(SettingError, match="already"):
        EnvironmentSettings("CartPole-v1", wrappers=[WRAPPER, WRAPPER]).make()


def test_final_observations_hold_what_was_earned_in_the_end() -> None:
    envs = SerialEnvs(lambda: AddMeasurements(Purse()), 2, seed=0)
    envs.reset()
    for number in range(1, 9):
        step = envs.step(np.zeros(2, np.int64))
        within = (number - 1) % 4 + 1
        assert step.next_obs["measurements"].tolist() == [[2 * within]] * 2
        assert step.obs["measurements"].tolist() == [[2 * (within % 4)]] * 2
        assert bool(step.terminated.all()) == (within == 4)
