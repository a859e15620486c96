"""Exploration by the policy's own randomness."""

from __future__ import annotations

from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.functional.distributions import Distribution
from torch import Tensor


@register("exploration", "sample")
class Sample(Exploration):
    """Draws from the policy's distribution; takes its mode while evaluating.

    Reads a distribution.

    Args:
        evaluation_mode: while evaluating, True takes the mode and False keeps drawing.
    """

    consumes = ("distribution",)

    def __init__(self, evaluation_mode: bool = True) -> None:
        self.evaluation_mode = evaluation_mode

    def __call__(self, output: Distribution, ctx: Context) -> Tensor:
        if ctx.explore or not self.evaluation_mode:
            return output.sample(ctx)
        return output.mode()
