"""Policy-gradient surrogates."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Negative clipped surrogate of PPO (arXiv:1707.06347, eq. 7), per row.

    Args:
        ratio: ``[B]`` probability of the action now over when it was taken.
        advantage: ``[B]``.
        clip: how far the ratio may pay off away from 1.
    """
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Low-variance, non-negative estimate of KL(old || new) from samples of the old policy.

    The k3 estimator of Schulman (2020), "Approximating KL divergence".
    """
    return (log_ratio.exp() - 1 - log_ratio).mean()
