"""Optimism where an ensemble disagrees."""

from __future__ import annotations

from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import NonNegative
from coach.functional.schedules import Schedule, as_schedule
from coach.functional.values import EnsembleValues
from torch import Tensor


@register("exploration", "ucb")
class UpperConfidenceBound(Exploration):
    """``argmax mean + scale * deviation`` over an ensemble's members (arXiv:1706.01502, alg. 2).

    While evaluating, the mean alone decides. Reads ensemble values.

    Args:
        scale: how much the members' disagreement counts.
        epsilon: probability of a random action besides, while training.
    """

    consumes = ("ensemble_values",)

    def __init__(self, scale: NonNegative = 0.1, epsilon: Schedule | float = 0.0) -> None:
        self.scale = scale
        self.epsilon = as_schedule(epsilon, "epsilon", 0, 1)

    def __call__(self, output: EnsembleValues, ctx: Context) -> Tensor:
        if not ctx.explore:
            return output.mean.argmax(-1)
        best = (output.mean + self.scale * output.deviation).argmax(-1)  # [N]
        epsilon = self.epsilon(ctx.step)
        if epsilon <= 0:
            return best
        return ctx.mostly(best, output.mean.shape[-1], epsilon, output.allowed)

    def monitor(self, step: int) -> dict[str, float]:
        return {"epsilon": self.epsilon(step)}
