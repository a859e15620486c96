"""Stochastic gradient descent."""

from __future__ import annotations

import torch
from coach.core.optimizer import Optimizer, TorchStepper
from coach.core.registry import register
from coach.core.schema import Decay, NonNegative, Positive
from coach.functional.schedules import Schedule
from torch import nn


@register("optimizer", "sgd")
class SGD(Optimizer):
    """Gradient descent with momentum.

    Args:
        lr: learning rate; a number or a schedule over environment steps.
        momentum: of the step.
        weight_decay: added to the gradient.
        max_grad_norm: gradients are scaled down to this 2-norm; null leaves them.
    """

    def __init__(
        self,
        lr: Schedule | float = 1e-2,
        momentum: Decay = 0.0,
        weight_decay: NonNegative = 0.0,
        max_grad_norm: Positive | None = None,
    ) -> None:
        super().__init__(lr, max_grad_norm)
        self.momentum, self.weight_decay = momentum, weight_decay

    def build(self, parameter: nn.Parameter) -> TorchStepper:
        return TorchStepper(
            torch.optim.SGD(
                [parameter], lr=self.lr(0), momentum=self.momentum, weight_decay=self.weight_decay
            )
        )
