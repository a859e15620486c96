"""One member of an ensemble decides for a whole episode."""

from __future__ import annotations

from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.functional.schedules import Schedule, as_schedule
from coach.functional.values import EnsembleValues
from torch import Tensor
from torch.nn.functional import one_hot


@register("exploration", "bootstrapped")
class Bootstrapped(Exploration):
    """Each episode follows a member drawn for it (arXiv:1602.04621, algorithm 1).

    While evaluating, the action that most members think best is taken; of several, the one with the
    largest mean. Reads ensemble values.

    Args:
        epsilon: probability of a random action besides, while training.
    """

    consumes = ("ensemble_values",)

    def __init__(self, epsilon: Schedule | float = 0.0) -> None:
        self.epsilon = as_schedule(epsilon, "epsilon", 0, 1)

    def __call__(self, output: EnsembleValues, ctx: Context) -> Tensor:
        best = output.best()  # [E, N]
        size, actions = len(best), output.mean.shape[-1]
        if not ctx.explore:
            votes = one_hot(best, actions).sum(0)  # [N, A]
            leading = votes == votes.amax(-1, keepdim=True)
            return output.mean.masked_fill(~leading, -float("inf")).argmax(-1)
        member = ctx.of_episode(size)
        chosen = best.gather(0, member.unsqueeze(0)).squeeze(0)
        epsilon = self.epsilon(ctx.step)
        if epsilon <= 0:
            return chosen
        return ctx.mostly(chosen, actions, epsilon, output.allowed)

    def monitor(self, step: int) -> dict[str, float]:
        return {"epsilon": self.epsilon(step)}
