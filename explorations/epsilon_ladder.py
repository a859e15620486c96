"""Random actions with a probability of its own for every environment."""

from __future__ import annotations

from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Fraction, Positive
from coach.functional.values import Values
from torch import Tensor


@register("exploration", "epsilon_ladder")
class EpsilonLadder(Exploration):
    """Epsilon-greedy with ``epsilon ** (1 + alpha * i / (N - 1))`` in environment ``i`` of ``N``.

    Some environments explore much and some hardly at all, so the replay holds both (Ape-X,
    arXiv:1803.00933, section 4.1). Reads values.

    Args:
        epsilon: of the first environment.
        alpha: how steep the ladder is.
    """

    consumes = ("values",)

    def __init__(self, epsilon: Fraction = 0.4, alpha: Positive = 7.0) -> None:
        self.epsilon, self.alpha = epsilon, alpha

    def __call__(self, output: Values, ctx: Context) -> Tensor:
        best = output.mean.argmax(-1)  # [N]
        if not ctx.explore:
            return best
        place = ctx.constant(ctx.env_ids) / max(ctx.num_envs - 1, 1)  # [N] from 0 to 1
        epsilon = self.epsilon ** (1 + self.alpha * place)
        return ctx.mostly(best, output.mean.shape[-1], epsilon, output.allowed)
