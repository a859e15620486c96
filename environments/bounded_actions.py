"""Bounds for actions that have none, for agents that need them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.errors import SettingError
from coach.core.spec import box_bounds
from gymnasium import spaces


class BoundActions(gym.ActionWrapper[Any, Any, Any]):
    """Narrows the bounds of a Box action, which agents like sac and naf need.

    In a preset:
    ``wrappers: [{"coach.environments.bounded_actions:BoundActions": {low: -2, high: 2}}]``.

    Args:
        env: any environment with Box actions.
        low: lower bound, for all dimensions or for each.
        high: upper bound.

    Raises:
        SettingError: no Box, bounds that do not fit it, or bounds that are none.
    """

    def __init__(
        self, env: gym.Env[Any, Any], low: float | list[float], high: float | list[float]
    ) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Box):
            raise SettingError(
                "environment.wrappers",
                f"BoundActions serves Box actions, but the environment has {space}",
                "Remove it.",
            )
        self.action_space = _narrowed(space, low, high)

    def action(self, action: Any) -> Any:
        """The action as it is: it lies within the new bounds, hence within the old ones."""
        return action


def _narrowed(space: spaces.Box, low: float | list[float], high: float | list[float]) -> spaces.Box:
    def bound(name: str, given: float | list[float]) -> Any:
        array = np.asarray(given, np.float64).reshape(-1)
        if array.size not in (1, space.low.size):
            raise SettingError(
                f"environment.wrappers.{name}",
                f"{array.size} numbers do not fit {space.low.size} dimensions of the action",
                "Give one number, or one for each dimension.",
            )
        return np.broadcast_to(array, space.low.size).reshape(space.shape).astype(space.dtype)

    lowest, highest = bound("low", low), bound("high", high)
    if (lowest < space.low).any() or (highest > space.high).any() or (lowest > highest).any():
        raise SettingError(
            "environment.wrappers",
            f"BoundActions with low {low} and high {high} does not lie within {space}",
            "Choose bounds within those of the environment, the lower one first.",
        )
    narrowed = spaces.Box(lowest, highest, space.shape, space.dtype.type)
    if not box_bounds(narrowed)[2].all():
        raise SettingError(
            "environment.wrappers",
            f"BoundActions with low {low} and high {high} leaves actions without bounds",
            "Choose smaller numbers, such as -1 and 1.",
        )
    return narrowed
