"""What an environment offers an agent: its observation and its action space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from coach.core.errors import SettingError
from gymnasium import spaces
from numpy.typing import NDArray

#: A Gymnasium space of whatever values.
AnySpace: TypeAlias = spaces.Space[Any]

#: Magnitude from which a bound of floats stands for "no bound", such as the largest float32.
_HUGE = 1e30
#: Gymnasium writes infinite bounds of integers as the type's limits, moved by so much.
_MARGIN = 2


@dataclass(frozen=True)
class Spec:
    """Spaces of one (not vectorised) environment.

    Agents act in their own unit: every bounded dimension of a Box action is [-1, 1] for them,
    whatever the bounds, see `coach.environments.actions`.

    Args:
        observation: Box, Discrete, MultiDiscrete, MultiBinary, or a (nested) Dict of these.
        action: Box, Discrete, MultiDiscrete or MultiBinary.
    """

    observation: AnySpace
    action: AnySpace

    def require_action(self, owner: str, *kinds: type[AnySpace]) -> None:
        """Stop unless the action space is one of ``kinds``.

        Raises:
            SettingError: names what ``owner`` serves and what the environment has.
        """
        if not isinstance(self.action, kinds):
            served = " or ".join(kind.__name__ for kind in kinds)
            raise SettingError(
                "agent",
                f"{owner} serves {served} actions, but the environment has {self.action}",
                "Choose another agent (`coach list agents`): dqn serves Discrete, sac serves Box, "
                "ppo serves Discrete, MultiDiscrete, MultiBinary and Box.",
            )

    def num_actions(self, owner: str) -> int:
        """Number of discrete actions; stops unless the action space is Discrete."""
        self.require_action(owner, spaces.Discrete)
        assert isinstance(self.action, spaces.Discrete)
        return int(self.action.n)

    def bounded_actions(self, owner: str) -> int:
        """Number of action dimensions; stops unless the action is a Box with bounds in each.

        Raises:
            SettingError: another space, or a dimension without bounds.
        """
        self.require_action(owner, spaces.Box)
        assert isinstance(self.action, spaces.Box)
        _, _, bounded = box_bounds(self.action)
        if not bounded.all():
            some_low, some_high = _some_bounds(self.action)
            raise SettingError(
                "environment",
                f"{owner} needs bounded actions, but the environment has {self.action}",
                "Set bounds that suit the task, such as `environment.wrappers: "
                '[{"coach.environments.bounded_actions:BoundActions": '
                f"{{low: {some_low}, high: {some_high}}}}}]`, or set `agent.type: ppo`.",
            )
        return len(bounded)


def box_bounds(
    space: spaces.Box,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Lower and upper bounds of a Box, flat, and which dimensions are bounded on both sides.

    What stands for "no bound" counts as none: infinity, floats from 1e30 (or the type's largest),
    and the limits of integers of 32 and 64 bits.
    """
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
    kind = np.dtype(space.dtype)
    least, most = -_HUGE, _HUGE
    if kind.kind == "f":
        most = min(_HUGE, float(np.finfo(kind).max))
        least = -most
    elif kind.kind in "iu" and kind.itemsize >= 4:
        limits = np.iinfo(kind)
        most = float(limits.max - _MARGIN)
        least = float(limits.min + _MARGIN) if kind.kind == "i" else least
    below = space.bounded_below.reshape(-1) & (low > least)
    above = space.bounded_above.reshape(-1) & (high < most)
    return low, high, below & above


def _some_bounds(space: spaces.Box) -> tuple[Any, Any]:
    """Bounds within those of a Box, for an error text: a number each if that will do."""
    low, high = space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist()
    _, _, bounded = box_bounds(space)
    for i, known in enumerate(bounded.tolist()):
        if known:
            continue
        if low[i] <= -1 < high[i]:
            low[i], high[i] = max(low[i], -1), min(high[i], 1)
        elif low[i] > -1:
            low[i], high[i] = low[i], min(high[i], low[i] + 2)
        else:
            low[i], high[i] = max(low[i], high[i] - 2), high[i]
    same = len(set(low)) == len(set(high)) == 1
    return (low[0], high[0]) if same else (low, high)
