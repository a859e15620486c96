"""Adam and its relatives, fused."""

from __future__ import annotations

import torch
from coach.core.optimizer import Optimizer
from coach.core.registry import register
from coach.core.schema import Fraction, NonNegative, Positive
from coach.functional.schedules import Schedule
from torch import nn


@register("optimizer", "adam")
class Adam(Optimizer):
    """Adam (arXiv:1412.6980), or AdamW (arXiv:1711.05101) with a weight decay.

    Args:
        lr: learning rate; a number or a schedule over environment steps.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled from the gradient.
        max_grad_norm: gradients are scaled down to this 2-norm; null leaves them.
    """

    def __init__(
        self,
        lr: Schedule | float = 3e-4,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
        max_grad_norm: Positive | None = None,
    ) -> None:
        super().__init__(lr, max_grad_norm)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def build(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [parameter],
            lr=self.lr(0),
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )
