"""A small task over several observations and actions; a file of its own, as presets name it."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "box": spaces.Box(-2, 2, (2,), np.float32),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "multibinary": spaces.MultiBinary(3),
}
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "picture": spaces.Box(0, 255, (36, 36, 1), np.uint8),
    "numbers": spaces.MultiDiscrete([3, 4]),
    "dict": spaces.Dict(
        {
            "speed": spaces.Box(-1, 1, (2,), np.float32),
            "kind": spaces.Discrete(3),
            "action_mask": spaces.MultiBinary(3),
        }
    ),
    "measured": spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (3,), np.float32),
            "measurements": spaces.Box(-1, 1, (2,), np.float32),
        }
    ),
}


class DeviceWorld(gym.Env[Any, Any]):
    """Random observations; pays for large first actions; ends by chance, or by a time limit.

    Args:
        action: name of the action space.
        observation: name of the observation space.
    """

    def __init__(self, action: str = "discrete", observation: str = "vector") -> None:
        self.observation_space = copy.deepcopy(OBSERVATIONS[observation])  # with its own stream
        self.action_space = ACTIONS[action]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float(np.asarray(action, np.float64).reshape(-1)[0])
        ends = bool(self.np_random.random() < 0.15)
        return self._observe(), reward, ends, not ends and self.steps == 7, {}

    def _observe(self) -> Any:
        seen = self.observation_space.sample()
        if isinstance(seen, dict) and "action_mask" in seen:
            seen["action_mask"][0] = 1  # something is always allowed
        return seen
