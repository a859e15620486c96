"""Random actions with a probability that shrinks over time."""

from __future__ import annotations

from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Fraction
from coach.functional.schedules import Constant, Linear, Schedule, as_schedule
from coach.functional.values import Values
from torch import Tensor


@register("exploration", "epsilon_greedy")
class EpsilonGreedy(Exploration):
    """A uniformly random action with probability epsilon, else the best (arXiv:1312.5602).

    Reads values.

    Args:
        epsilon: probability of a random action while training; a number or a schedule.
        evaluation_epsilon: the same while evaluating.
    """

    consumes = ("values",)

    def __init__(
        self,
        epsilon: Schedule | float = Linear(1.0, 0.05, 10_000),
        evaluation_epsilon: Fraction = 0.0,
    ) -> None:
        self.epsilon = as_schedule(epsilon, "epsilon", 0, 1)
        self.evaluation = Constant(evaluation_epsilon)

    def __call__(self, output: Values, ctx: Context) -> Tensor:
        mean = output.mean
        best = mean.argmax(-1)  # [N]
        epsilon = (self.epsilon if ctx.explore else self.evaluation)(ctx.step)
        if epsilon <= 0:
            return best
        return ctx.mostly(best, mean.shape[-1], epsilon, output.allowed)

    def monitor(self, step: int) -> dict[str, float]:
        return {"epsilon": self.epsilon(step)}
