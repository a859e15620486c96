"""A chain along which only a policy that goes the same way again and again finds the reward."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.registry import register
from coach.core.schema import Count, CountOrZero
from gymnasium import spaces
from numpy.typing import NDArray


@register("environment", "exploration_chain")
class ExplorationChain(gym.Env[NDArray[np.float32], np.int64]):
    """Cells in a row, entered at the second (arXiv:1602.04621, section 5.1 and appendix C).

    The leftmost cell pays 0.001 for every step that ends in it, the rightmost 1, and an episode
    takes ``length + 9`` steps, so 12 is the best return. Acting at random reaches the right end of
    20 cells in one of 1,650 episodes, and what is found on the way there speaks for going left. The
    observation says of every cell whether it is the present one or lies left of it ("thermometer"
    coding).

    Which of the two actions leads to the right is drawn once for each cell, as in later work on the
    same question (arXiv:1703.07608 and arXiv:1908.03568, "deep sea"). If it is the same
    action everywhere, a network that has learned nothing may get through: it often prefers one
    action in all cells.

    Args:
        length: number of cells.
        mapping: which drawing of the actions' meanings; with 0, action 1 leads to the right in all
            cells.
    """

    def __init__(self, length: Count = 20, mapping: CountOrZero = 1) -> None:
        self.length = length
        drawn = np.random.default_rng(mapping).integers(0, 2, length)
        #: The action that leads to the right, for each cell.
        self.right = drawn if mapping else np.ones(length, np.int64)
        self.observation_space = spaces.Box(0.0, 1.0, (length,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._cell, self._steps = min(1, self.length - 1), 0
        return self._observe(), {}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        move = 1 if action == self.right[self._cell] else -1
        self._cell = min(max(self._cell + move, 0), self.length - 1)
        self._steps += 1
        reward = {0: 0.001, self.length - 1: 1.0}.get(self._cell, 0.0)
        return self._observe(), reward, self._steps >= self.length + 9, False, {}

    def _observe(self) -> NDArray[np.float32]:
        return (np.arange(self.length) <= self._cell).astype(np.float32)
