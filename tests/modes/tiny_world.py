"""A small task over any action space; a plugin of its own, so that worker processes find it too."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "multibinary": spaces.MultiBinary(3),
}


class TinyWorld(gym.Env[Any, Any]):
    """Random observations; pays for large first actions; ends by chance, or by a time limit.

    Args:
        action: name of the action space.
    """

    def __init__(self, action: str = "discrete") -> None:
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = ACTIONS[action]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float(np.asarray(action, np.float64).reshape(-1)[0])
        ends = bool(self.np_random.random() < 0.1)
        return self._observe(), reward, ends, not ends and self.steps == 9, {}

    def _observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)
