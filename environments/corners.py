"""A small task with a Dict observation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.errors import SettingError
from coach.core.registry import register
from coach.core.schema import Count
from gymnasium import spaces

_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


@register("environment", "corners")
class Corners(gym.Env[dict[str, Any], np.int64]):
    """Walk on a square board to the one corner out of four that the goal names.

    The observation is a Dict of the ``position`` (two numbers in [-1, 1]) and the ``goal`` (one of
    four); both are needed. Every step costs 0.1, arriving pays 1 and ends the episode.

    Args:
        size: cells per side; odd, so that the walk begins in the middle.
        limit: steps after which the episode is cut off.
    """

    def __init__(self, size: Count = 7, limit: Count = 50) -> None:
        if size < 3 or size % 2 == 0:
            raise SettingError(
                "environment.kwargs.size",
                f"{size} cells have no one in the middle",
                "Choose an odd size.",
            )
        self.size, self.limit = size, limit
        self.observation_space = spaces.Dict(
            {"position": spaces.Box(-1.0, 1.0, (2,), np.float32), "goal": spaces.Discrete(4)}
        )
        self.action_space = spaces.Discrete(4)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._cell = np.array([self.size // 2, self.size // 2])
        self._goal = int(self.np_random.integers(4))
        self._steps = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._cell = np.clip(self._cell + _MOVES[action], 0, self.size - 1)
        self._steps += 1
        corner = np.array([self._goal // 2, self._goal % 2]) * (self.size - 1)
        arrived = bool((self._cell == corner).all())
        return self._observe(), 1.0 if arrived else -0.1, arrived, self._steps >= self.limit, {}

    def _observe(self) -> dict[str, Any]:
        position = self._cell.astype(np.float32) / (self.size - 1) * 2 - 1
        return {"position": position, "goal": self._goal}
