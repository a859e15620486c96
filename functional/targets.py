"""One-step temporal-difference targets and losses."""

from __future__ import annotations

import torch
from torch import Tensor


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """``reward + discount * next_value`` (Sutton and Barto, 2018, eq. 6.2), all ``[B]``."""
    return torch.addcmul(reward, discount, next_value)


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """Quadratic within ``delta``, linear beyond (Huber, 1964); elementwise."""
    size = error.abs()
    quadratic = size.clamp(max=delta)
    return quadratic * (size - 0.5 * quadratic)


def soft_value(q: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Entropy-regularised value ``q - alpha * log_prob`` (arXiv:1812.05905, eq. 3)."""
    return q - temperature * log_prob
