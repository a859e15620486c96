"""A game of several lives, each an episode of its own; a plugin, so that workers find it too."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class LivesWorld(gym.Env[Any, Any]):
    """Shows the sum of all moves since the game began, the steps and the lives left.

    A life ends by chance; three of them, and the next reset begins a new game.
    """

    observation_space = spaces.Box(-1e6, 1e6, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.continues_at_reset = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if not self.continues_at_reset:
            self.sum, self.steps, self.lives = 0.0, 0, 3
        self.continues_at_reset = False
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.sum += float(action) * self.np_random.random()
        self.steps += 1
        lost = bool(self.np_random.random() < 0.1)
        self.lives -= lost
        self.continues_at_reset = lost and self.lives > 0
        return self._observe(), float(action), lost, False, {}

    def _observe(self) -> Any:
        return np.array([self.sum, self.steps, self.lives], np.float32)
