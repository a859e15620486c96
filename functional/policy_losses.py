"""Policy-gradient surrogates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Negative clipped surrogate of PPO (arXiv:1707.06347, eq. 7), per row.

    Args:
        ratio: ``[B]`` probability of the action now over when it was taken.
        advantage: ``[B]``.
        clip: how far the ratio may pay off away from 1.
    """
    loss: Tensor = _ClippedSurrogate.apply(ratio, advantage, clip)  # type: ignore[no-untyped-call]
    return loss


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Low-variance, non-negative estimate of KL(old || new) from samples of the old policy.

    The k3 estimator of Schulman (2020), "Approximating KL divergence".
    """
    return (log_ratio.exp() - 1 - log_ratio).mean()


class _ClippedSurrogate(torch.autograd.Function):
    """With its gradient written out: ``-A`` where the unclipped term is the smaller one, else 0."""

    @staticmethod
    def forward(ctx: Any, ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
        free = ratio * advantage
        clipped = ratio.clamp(1 - clip, 1 + clip) * advantage
        ctx.save_for_backward(free, clipped, advantage)
        return -torch.minimum(free, clipped)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        free, clipped, advantage = ctx.saved_tensors
        return -gradient * advantage * (free <= clipped), None, None
