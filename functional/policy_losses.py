"""Policy-gradient surrogates."""

from __future__ import annotations

from typing import Any

import torch
from coach.core.eager import may_leave_torch
from torch import Tensor


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Negative clipped surrogate of PPO (arXiv:1707.06347, eq. 7), per row.

    Args:
        ratio: ``[B]`` probability of the action now over when it was taken.
        advantage: ``[B]``.
        clip: how far the ratio may pay off away from 1.
    """
    if not may_leave_torch(ratio, advantage):
        return -torch.minimum(*_terms(ratio, advantage, clip))
    loss: Tensor = _ClippedSurrogate.apply(ratio, advantage, clip)  # type: ignore[no-untyped-call]
    return loss


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Low-variance, non-negative estimate of KL(old || new) from samples of the old policy.

    The k3 estimator of Schulman (2020), "Approximating KL divergence".
    """
    return (log_ratio.exp() - 1 - log_ratio).mean()


def _terms(ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    return ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage


class _ClippedSurrogate(torch.autograd.Function):
    """With its gradient written out: ``-A`` where the unclipped term is the smaller one, else 0."""

    @staticmethod
    def forward(ctx: Any, ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
        free, clipped = _terms(ratio, advantage, clip)
        ctx.save_for_backward(free, clipped, ratio, advantage)
        ctx.clip = clip
        return -torch.minimum(free, clipped)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        free, clipped, ratio, advantage = ctx.saved_tensors
        unclipped = free <= clipped
        of_advantage: Tensor | None = None
        if ctx.needs_input_grad[1]:
            near = ratio.clamp(1 - ctx.clip, 1 + ctx.clip)
            of_advantage = -gradient * torch.where(unclipped, ratio, near)
        return -gradient * advantage * unclipped, of_advantage, None
