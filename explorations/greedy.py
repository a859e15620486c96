"""No exploration."""

from __future__ import annotations

from typing import Any

from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from torch import Tensor


@register("exploration", "greedy")
class Greedy(Exploration):
    """Takes the best-valued action, the mode of a distribution, or the action as it is.

    Reads values, a distribution or an action.
    """

    consumes = ("values", "distribution", "action")

    def __call__(self, output: Any, ctx: Context) -> Tensor:
        if isinstance(output, Tensor):
            return output
        values = getattr(output, "mean", None)
        if hasattr(output, "mode"):
            mode: Tensor = output.mode()
            return mode
        assert values is not None
        best: Tensor = values.argmax(-1)
        return best
