"""The optimiser contract: which rule steps a flat parameter vector, how fast, clipped where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from coach.functional.schedules import Schedule, as_schedule
from torch import nn


class Optimizer(ABC):
    """Settings of a `torch.optim` optimiser.

    Args:
        lr: learning rate; a number or a schedule over environment steps.
        max_grad_norm: gradients are scaled down to this 2-norm; ``None`` leaves them.
    """

    kind: ClassVar[str] = "optimizer"

    def __init__(self, lr: Schedule | float, max_grad_norm: float | None) -> None:
        self.lr, self.max_grad_norm = as_schedule(lr), max_grad_norm

    @abstractmethod
    def build(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        """An optimiser over one (flat) parameter."""
