"""Values of continuous actions that are quadratic in the action, so that the best one is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class QuadraticValues:
    """``Q(a) = V - 1/2 (a - m)^T P (a - m)`` with ``P = L L^T`` (arXiv:1603.00748, section 4).

    ``exp(Q)`` has the form of a normal density with mean ``m`` and precision ``P``.

    Args:
        value: ``[B]`` V, the value of the best action.
        mean: ``[B, D]`` m, the best action.
        factor: ``[B, D, D]`` L, lower triangular.
    """

    value: Tensor
    mean: Tensor
    factor: Tensor

    def of(self, action: Tensor) -> Tensor:
        """``[B]`` what the actions ``[B, D]`` are worth."""
        away = (action - self.mean).unsqueeze(1)  # [B, 1, D]
        along = torch.bmm(away, self.factor).squeeze(1)  # [B, D] (a - m)^T L
        return self.value - 0.5 * along.square().sum(-1)

    @property
    def precision(self) -> Tensor:
        """``[B, D, D]`` P, symmetric and positive definite."""
        return self.factor @ self.factor.transpose(1, 2)
