"""Observations with some of their numbers taken away, so that a policy has to remember."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.errors import SettingError
from gymnasium import spaces


class MaskObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Keeps some entries of a vector observation, such as positions without their velocities.

    In a preset: ``wrappers: [{"coach.environments.masked:MaskObservation": {keep: [0, 2]}}]``.

    Args:
        env: with a vector as observation.
        keep: indices of the entries to keep.
    """

    def __init__(self, env: gym.Env[Any, Any], keep: list[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise SettingError(
                "environment.wrappers", f"MaskObservation needs a vector, not {space}"
            )
        if not all(0 <= index < space.shape[0] for index in keep):
            raise SettingError(
                "environment.wrappers", f"keep: {keep} does not fit {space.shape[0]} entries"
            )
        self.keep = np.asarray(keep)
        low, high = space.low[self.keep], space.high[self.keep]
        self.observation_space = spaces.Box(low, high, dtype=space.dtype.type)

    def observation(self, observation: Any) -> Any:
        """The kept entries."""
        return observation[self.keep]
