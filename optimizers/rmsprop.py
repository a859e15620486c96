"""RMSProp."""

from __future__ import annotations

import torch
from coach.core.optimizer import Optimizer, TorchStepper
from coach.core.registry import register
from coach.core.schema import Decay, Positive
from coach.functional.schedules import Schedule
from torch import nn


@register("optimizer", "rmsprop")
class RMSProp(Optimizer):
    """RMSProp (Tieleman and Hinton, 2012), the optimiser of the first DQN and A3C papers.

    Args:
        lr: learning rate; a number or a schedule over environment steps.
        alpha: decay of the squared gradient.
        eps: added to its root.
        momentum: of the step.
        centered: subtract the mean gradient before squaring.
        max_grad_norm: gradients are scaled down to this 2-norm; null leaves them.
    """

    def __init__(
        self,
        lr: Schedule | float = 2.5e-4,
        alpha: Decay = 0.95,
        eps: Positive = 1e-2,
        momentum: Decay = 0.0,
        centered: bool = False,
        max_grad_norm: Positive | None = None,
    ) -> None:
        super().__init__(lr, max_grad_norm)
        self.alpha, self.eps, self.momentum, self.centered = alpha, eps, momentum, centered

    def build(self, parameter: nn.Parameter) -> TorchStepper:
        return TorchStepper(
            torch.optim.RMSprop(
                [parameter],
                lr=self.lr(0),
                alpha=self.alpha,
                eps=self.eps,
                momentum=self.momentum,
                centered=self.centered,
            )
        )
