"""Distributions of returns: projection onto a support, quantile regression."""

from __future__ import annotations

import torch
from torch import Tensor


def project(support: Tensor, probability: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
    """The distribution of ``reward + discount * Z`` on the support (arXiv:1707.06887, alg. 1).

    Mass between two atoms goes to both, in proportion to how near they are; mass beyond the ends
    goes to the ends.

    Args:
        support: ``[K]`` atoms, equally spaced.
        probability: ``[B, K]`` distribution of Z.
        reward: ``[B]``.
        discount: ``[B]``; 0 behind a terminal state.

    Returns:
        ``[B, K]``.
    """
    count = len(support)
    low, high = support[0], support[-1]
    moved = torch.addcmul(reward[:, None], discount[:, None], support)  # [B, K]
    place = ((moved - low) * ((count - 1) / (high - low))).clamp(0, count - 1)
    below = place.floor()
    share = place - below  # of the atom above
    index = below.long()
    projected = torch.zeros_like(probability)
    projected.scatter_add_(-1, index, probability * (1 - share))
    projected.scatter_add_(-1, (index + 1).clamp(max=count - 1), probability * share)
    return projected


def quantile_huber(
    now: Tensor, target: Tensor, fraction: Tensor, kappa: float, share: Tensor | None = None
) -> Tensor:
    """Quantile regression loss ``[B]`` (arXiv:1710.10044, eq. 10; arXiv:1806.06923, eq. 3).

    Summed over the predicted quantiles, averaged over the samples of the target.

    Args:
        now: ``[B, N]`` predicted quantiles.
        target: ``[B, M]`` samples of the target, without gradient.
        fraction: ``[N]`` or ``[B, N]`` which quantiles were predicted.
        kappa: where the squared error turns linear; 0 is the plain quantile loss.
        share: ``[B, M]`` probabilities of the samples; left out, all the same.
    """
    error = target[:, None, :] - now[:, :, None]  # [B, N, M]
    size = error.abs()
    if kappa:
        quadratic = size.clamp(max=kappa)
        loss = quadratic * (size - 0.5 * quadratic) / kappa
    else:
        loss = size
    tilt = (fraction[..., None] - (error.detach() < 0).to(error.dtype)).abs()
    tilted = tilt * loss
    average = tilted.mean(-1) if share is None else (tilted * share[:, None, :]).sum(-1)
    return average.sum(-1)


def midpoints(count: int, device: torch.device | None = None) -> Tensor:
    """``(2 i - 1) / (2 N)``: the fractions of N equally probable quantiles (arXiv:1710.10044)."""
    return (torch.arange(count, device=device) + 0.5) / count
