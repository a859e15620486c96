"""Tiny environments over all the spaces that agents may meet."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.registry import find
from gymnasium import spaces

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "doubles": spaces.Box(-1, 1, (2,), np.float64),
    "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
    "stack": spaces.Box(0, 255, (4, 36, 36), np.uint8),
    "number": spaces.Discrete(4),
    "dict": spaces.Dict(
        {
            "speed": spaces.Box(-1, 1, (2,), np.float32),
            "inner": spaces.Dict({"kind": spaces.Discrete(3), "bits": spaces.MultiBinary(2)}),
        }
    ),
}

#: What agents see that predict measurements.
MEASURED = spaces.Dict(
    {"observation": OBSERVATIONS["vector"], "measurements": spaces.Box(-1, 1, (2,), np.float32)}
)

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "shifted": spaces.Discrete(3, start=-1),
    "box": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "multibinary": spaces.MultiBinary(3),
}


def ours(kind: str, name: str) -> bool:
    """Whether a part comes with Coach: its refusals have to say more than those of plugins."""
    return find(kind, name).__module__.startswith("coach.")


class World(gym.Env[Any, Any]):
    """Random observations, reward 1, ended after ``length`` steps.

    Args:
        observation: its observation space.
        action: its action space; a step outside of it fails.
        length: steps per episode.
        terminates: whether the episode's end is a terminal state or a time limit.
    """

    def __init__(
        self,
        observation: spaces.Space[Any],
        action: spaces.Space[Any],
        length: int = 5,
        terminates: bool = False,
    ) -> None:
        self.observation_space, self.action_space = observation, action
        self.length, self.terminates = length, terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.steps += 1
        over = self.steps >= self.length
        observation = self.observation_space.sample()
        return observation, 1.0, over and self.terminates, over and not self.terminates, {}
