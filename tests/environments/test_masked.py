"""Observations without some of their numbers."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from coach.core.errors import SettingError
from coach.environments.making import EnvironmentSettings
from coach.environments.masked import MaskObservation


def test_kept_entries_are_those_of_the_environment() -> None:
    plain, masked = gym.make("CartPole-v1"), MaskObservation(gym.make("CartPole-v1"), [0, 2])
    whole, _ = plain.reset(seed=3)
    part, _ = masked.reset(seed=3)
    assert part.tolist() == whole[[0, 2]].tolist()
    whole, *_ = plain.step(1)
    part, *_ = masked.step(1)
    assert part.tolist() == whole[[0, 2]].tolist()
    assert masked.observation_space.contains(np.asarray(part))
    assert masked.observation_space.high.tolist() == plain.observation_space.high[[0, 2]].tolist()


@pytest.mark.parametrize(("env", "keep"), [("CartPole-v1", [4]), ("FrozenLake-v1", [0])])
def test_what_cannot_be_kept_is_refused(env: str, keep: list[int]) -> None:
    wrappers: list[str | dict[str, object]] = [
        {"coach.environments.masked:MaskObservation": {"keep": keep}}
    ]
    with pytest.raises(SettingError, match=r"MaskObservation|keep"):
        EnvironmentSettings(env, wrappers=wrappers).make()
