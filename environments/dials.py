"""A small task with several discrete choices per step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.registry import register
from coach.core.schema import Count
from gymnasium import spaces
from numpy.typing import NDArray


@register("environment", "dials")
class Dials(gym.Env[NDArray[np.int64], NDArray[np.int64]]):
    """Turn several dials at once until each points where it should.

    Every action turns each dial back, not at all, or forth. The observation tells where the dials
    point and where they should. Every step costs the turns that are left, as a share of the most
    that can be; the episode ends when there are none.

    Args:
        dials: how many.
        positions: of each dial, in a circle.
        limit: steps after which the episode is cut off.
    """

    def __init__(self, dials: Count = 2, positions: Count = 8, limit: Count = 50) -> None:
        self.dials, self.positions, self.limit = dials, positions, limit
        self.observation_space = spaces.MultiDiscrete([positions] * dials * 2)
        self.action_space = spaces.MultiDiscrete([3] * dials)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._wanted = self.np_random.integers(self.positions, size=self.dials)
        apart = self.np_random.integers(1, self.positions, size=self.dials)
        self._dials = (self._wanted + apart) % self.positions
        self._steps = 0
        return self._observe(), {}

    def step(
        self, action: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        self._dials = (self._dials + np.asarray(action) - 1) % self.positions
        self._steps += 1
        apart = np.abs(self._dials - self._wanted)
        turns = int(np.minimum(apart, self.positions - apart).sum())
        most = max(1, self.dials * (self.positions // 2))
        return self._observe(), -turns / most, turns == 0, self._steps >= self.limit, {}

    def _observe(self) -> NDArray[np.int64]:
        return np.concatenate([self._dials, self._wanted])
