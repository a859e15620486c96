"""A task whose action has any unit; a plugin of its own, so that runs find it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class LeverWorld(gym.Env[Any, Any]):
    """Pays for levers that stand where they should; where is shown. Episodes of seven steps.

    Args:
        low: lower bound of each lever.
        high: upper bound.
    """

    def __init__(self, low: list[float], high: list[float]) -> None:
        self.low, self.high = np.array(low), np.array(high)
        self.observation_space = spaces.Box(-1, 1, (len(low),), np.float32)
        self.action_space = spaces.Box(self.low, self.high, dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        share = (action - self.low) / (self.high - self.low)  # 0 to 1
        reward = -float(np.abs(2 * share - 1 - self.wanted).sum())
        self.steps += 1
        return self._show(), round(reward, 5), False, self.steps == 7, {}

    def _show(self) -> Any:
        self.wanted = self.np_random.integers(-8, 9, len(self.low)) / 8
        return self.wanted.astype(np.float32)
