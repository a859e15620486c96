"""RMSProp."""

from __future__ import annotations

import torch
from coach.core.optimizer import Optimizer, Stepper
from coach.core.registry import register
from coach.core.schema import Decay, Positive
from coach.functional.schedules import Schedule
from torch import nn

_LEAST = 1e-30  # a square far below that of any eps


@register("optimizer", "rmsprop")
class RMSProp(Optimizer):
    """RMSProp (Tieleman and Hinton, 2012), the optimiser of the first DQN and A3C papers.

    Args:
        lr: learning rate; a number or a schedule over environment steps.
        alpha: decay of the squared gradient.
        eps: added to its root, or under it.
        momentum: of the step.
        centered: subtract the squared mean gradient from the mean square (arXiv:1308.0850).
        eps_under_root: divide by ``sqrt(square + eps)``, as the Nature DQN, A3C
            (arXiv:1602.01783) and TensorFlow do, instead of by ``sqrt(square) + eps``, as PyTorch
            does. An ``eps`` under the root is as strong as its square root beside it.
        max_grad_norm: gradients are scaled down to this 2-norm; null leaves them.
    """

    def __init__(
        self,
        lr: Schedule | float = 2.5e-4,
        alpha: Decay = 0.95,
        eps: Positive = 1e-2,
        momentum: Decay = 0.0,
        centered: bool = False,
        eps_under_root: bool = False,
        max_grad_norm: Positive | None = None,
    ) -> None:
        super().__init__(lr, max_grad_norm)
        self.alpha, self.eps, self.momentum, self.centered = alpha, eps, momentum, centered
        self.eps_under_root = eps_under_root

    def build(self, parameter: nn.Parameter) -> RMSPropStepper:
        settings = (self.alpha, self.eps, self.momentum, self.centered, self.eps_under_root)
        return RMSPropStepper(parameter, *settings)


class RMSPropStepper(Stepper):
    """Divides the gradient by a running root mean square of itself.

    Args:
        parameter: a flat vector with its gradient set.
        alpha: decay of the squared gradient.
        eps: added to its root, or under it.
        momentum: of the step.
        centered: subtract the squared mean gradient from the mean square.
        eps_under_root: add ``eps`` before the root is taken.
    """

    def __init__(
        self,
        parameter: nn.Parameter,
        alpha: float,
        eps: float,
        momentum: float,
        centered: bool,
        eps_under_root: bool = False,
    ) -> None:
        wanted = ("square", *("speed",) * (momentum > 0), *("mean",) * centered)
        super().__init__(parameter, *wanted)
        self.alpha, self.momentum = alpha, momentum
        self.under, self.beside = (eps, 0.0) if eps_under_root else (0.0, eps)

    def step(self, lr: float) -> None:
        """Move the parameter."""
        gradient, slots = self.gradient, self.slots
        square = slots["square"].mul_(self.alpha)
        square.addcmul_(gradient, gradient, value=1 - self.alpha)
        if "mean" in slots:
            mean = slots["mean"].lerp_(gradient, 1 - self.alpha)
            square = torch.addcmul(square, mean, mean, value=-1)
        # Rounding may leave less than nothing of a centred square; roots of zero are slow besides.
        if self.under:
            square = square + self.under
        root = square.clamp(min=_LEAST).sqrt_()
        if self.beside:
            root.add_(self.beside)
        if self.momentum:
            speed = slots["speed"].mul_(self.momentum).addcdiv_(gradient, root)
            self.vector.add_(speed, alpha=-lr)
        else:
            self.vector.addcdiv_(gradient, root, value=-lr)
