"""Adam and its relatives, fused."""

from __future__ import annotations

import torch
from coach.core.optimizer import Optimizer, Stepper
from coach.core.registry import register
from coach.core.schema import Decay, NonNegative, Positive
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
        betas: tuple[Decay, Decay] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
        max_grad_norm: Positive | None = None,
    ) -> None:
        super().__init__(lr, max_grad_norm)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def build(self, parameter: nn.Parameter) -> FusedAdam:
        return FusedAdam(parameter, self.betas, self.eps, self.weight_decay)


class FusedAdam(Stepper):
    """torch's fused AdamW kernel on one vector, without the optimiser class around it.

    That class spends about 100 microseconds of Python on every step, several times what the kernel
    takes on the networks of small tasks.

    Args:
        parameter: a flat vector with its gradient set.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled from the gradient.
    """

    def __init__(
        self, parameter: nn.Parameter, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(parameter, "first", "second")
        self.slots["steps"] = torch.zeros((), device=self.vector.device)
        self._one = torch.ones_like(self.slots["steps"])  # adding a number takes twice as long
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def step(self, lr: float) -> None:
        """Move the parameter (arXiv:1711.05101, algorithm 2)."""
        self.slots["steps"].add_(self._one)
        torch._fused_adamw_(
            [self.vector],
            [self.gradient],
            [self.slots["first"]],
            [self.slots["second"]],
            [],
            [self.slots["steps"]],
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
