"""Turning one row of bits into another, one bit a step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.registry import register
from coach.core.schema import Count
from gymnasium import spaces


@register("environment", "bit_flip")
class BitFlip(gym.Env[dict[str, Any], np.int64]):
    """Flip bits until they match a goal (arXiv:1707.01495, section 3.1).

    The observation is a Dict of the ``observation`` and the ``desired_goal``, rows of zeros and
    ones. Every step costs 1, the one that reaches the goal nothing, and it ends the episode. With
    more than a dozen bits chance alone hardly ever gets there.

    Args:
        bits: how many; an episode is cut off after as many steps.
    """

    def __init__(self, bits: Count = 8) -> None:
        self.bits = bits
        self.observation_space = spaces.Dict(
            {key: spaces.MultiBinary(bits) for key in ("observation", "desired_goal")}
        )
        self.action_space = spaces.Discrete(bits)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        drawn = self.np_random.integers(0, 2, (2, self.bits), dtype=np.int8)
        if (drawn[0] == drawn[1]).all():
            drawn[0, 0] ^= 1  # there is something to do
        self._now, self._goal = drawn
        self._steps = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._now[action] ^= 1
        self._steps += 1
        reached = bool((self._now == self._goal).all())
        reward = 0.0 if reached else -1.0
        return self._observe(), reward, reached, self._steps >= self.bits, {}

    def _observe(self) -> dict[str, Any]:
        return {"observation": self._now.copy(), "desired_goal": self._goal.copy()}
