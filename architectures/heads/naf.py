"""Values of continuous actions with a known maximum."""

from __future__ import annotations

import torch
from coach.architectures.head import Head
from coach.architectures.linear import Linear
from coach.core.registry import register
from coach.core.spec import Spec
from coach.functional.quadratic import QuadraticValues
from torch import Tensor


@register("head", "naf")
class NormalizedAdvantage(Head):
    """``Q = V - 1/2 (a - m)^T L L^T (a - m)`` (arXiv:1603.00748, section 4).

    ``m`` is a tanh, for actions are [-1, 1] inside an agent. ``L`` is lower triangular with an
    exponentiated diagonal: the value of a fresh network falls by about 1/2 from the middle of the
    range to its ends, in each dimension.

    Serves bounded Box actions. Its output tells the value of any action and which one is best.
    """

    provides = "quadratic_values"
    order: Tensor

    def __init__(self, features: int, spec: Spec) -> None:
        super().__init__()
        size = spec.bounded_actions("head naf")
        below = size * (size - 1) // 2
        self.sizes = [1, size, size, below]  # V, m, and of L what is on and below the diagonal
        self.out = Linear(features, sum(self.sizes))
        self.register_buffer("order", _rows_of_triangle(size), persistent=False)

    def forward(self, features: Tensor) -> QuadraticValues:
        value, mean, diagonal, below = self.out(features).split(self.sizes, -1)
        entries = torch.cat([diagonal.exp(), below, torch.zeros_like(value)], -1)
        size = diagonal.shape[-1]
        factor = entries.index_select(-1, self.order).view(-1, size, size)  # [B, D, D]
        return QuadraticValues(value.sum(-1), mean.tanh(), factor)  # a sum of one: [B], and no view


def _rows_of_triangle(size: int) -> Tensor:
    """``[size * size]`` where each entry of a lower triangle, row by row, is to be found.

    First come ``size`` entries of the diagonal, then those below it, and last a zero.
    """
    below = size * (size - 1) // 2
    order = torch.full((size, size), size + below)
    order.diagonal().copy_(torch.arange(size))
    rows, columns = torch.tril_indices(size, size, -1)
    order[rows, columns] = torch.arange(size, size + below)
    return order.view(-1)
