"""Stochastic gradient descent."""

from __future__ import annotations

from coach.core.optimizer import Optimizer, Stepper
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

    def build(self, parameter: nn.Parameter) -> SGDStepper:
        return SGDStepper(parameter, self.momentum, self.weight_decay)


class SGDStepper(Stepper):
    """Steps along the gradient, or along its decaying sum.

    Args:
        parameter: a flat vector with its gradient set.
        momentum: of the step.
        weight_decay: added to the gradient.
    """

    def __init__(self, parameter: nn.Parameter, momentum: float, weight_decay: float) -> None:
        super().__init__(parameter, *("speed",) * (momentum > 0))
        self.momentum, self.weight_decay = momentum, weight_decay

    def step(self, lr: float) -> None:
        """Move the parameter."""
        direction = self.gradient
        if self.weight_decay:
            direction = direction.add(self.vector, alpha=self.weight_decay)
        if self.momentum:
            direction = self.slots["speed"].mul_(self.momentum).add_(direction)
        self.vector.add_(direction, alpha=-lr)
