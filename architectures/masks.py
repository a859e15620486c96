"""Ruling actions out of what heads return."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def masked(output: Any, mask: Tensor) -> Any:
    """What a head returned, without the actions that are not allowed.

    Args:
        output: of any head; outputs without actions to choose from have no method ``masked``.
        mask: ``[B, A]`` not 0 where an action is allowed. A row without any counts as if all were,
            so that its value is a number. Such rows lie behind terminal states, where the value
            counts for nothing; elsewhere they are refused, see `coach.core.action_mask`.
    """
    without = getattr(output, "masked", None)
    if without is None:
        return output
    allowed = mask != 0
    return without(allowed | ~allowed.any(-1, keepdim=True))
