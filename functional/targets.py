"""One-step temporal-difference targets, and losses of errors.

Losses bring their gradient with them: one operation in place of the several that autograd makes of
the formula, and none of them needs the loss itself. That gradient can be differentiated again.
"""

from __future__ import annotations

from typing import Any

import torch
from coach.core.eager import may_leave_torch
from torch import Tensor


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """``reward + discount * next_value`` (Sutton and Barto, 2018, eq. 6.2), all ``[B]``."""
    return torch.addcmul(reward, discount, next_value)


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """Quadratic within ``delta``, linear beyond (Huber, 1964); elementwise."""
    if not may_leave_torch(error):
        near = error.clamp(-delta, delta)  # and not the size, which has no slope at 0
        return near * (error - 0.5 * near)
    loss: Tensor = _Huber.apply(error, delta)  # type: ignore[no-untyped-call]
    return loss


def half_squared(error: Tensor) -> Tensor:
    """Half the square, elementwise: its gradient is the error."""
    if not may_leave_torch(error):
        return 0.5 * error.square()
    loss: Tensor = _HalfSquared.apply(error)  # type: ignore[no-untyped-call]
    return loss


def soft_value(q: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Entropy-regularised value ``q - alpha * log_prob`` (arXiv:1812.05905, eq. 3)."""
    return q - temperature * log_prob


class _Huber(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, error: Tensor, delta: float) -> Tensor:
        ctx.save_for_backward(error)
        ctx.delta = delta
        size = error.abs()
        quadratic = size.clamp(max=delta)
        return quadratic * (size - 0.5 * quadratic)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (error,) = ctx.saved_tensors
        return gradient * error.clamp(-ctx.delta, ctx.delta), None


class _HalfSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, error: Tensor) -> Tensor:
        ctx.save_for_backward(error)
        return 0.5 * error.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (error,) = ctx.saved_tensors
        along: Tensor = gradient * error
        return along
