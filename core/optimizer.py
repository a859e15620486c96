"""The optimiser contract: which rule steps a flat parameter vector, how fast, clipped where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from coach.functional.schedules import Schedule, as_schedule
from torch import Tensor, nn


class Stepper(ABC):
    """Steps one flat parameter along its gradient; what its rule remembers lies in `slots`.

    Args:
        parameter: a flat vector with its gradient set.
        slots: names of the vectors that the rule remembers, which begin as zeros.
    """

    def __init__(self, parameter: nn.Parameter, *slots: str) -> None:
        assert parameter.grad is not None
        self.vector, self.gradient = parameter.data, parameter.grad
        self.slots = {name: torch.zeros_like(self.vector) for name in slots}

    @abstractmethod
    def step(self, lr: float) -> None:
        """Move the parameter; the gradient stays as it is."""

    def state_dict(self) -> dict[str, Tensor]:
        """The slots."""
        return dict(self.slots)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        for name, slot in self.slots.items():
            slot.copy_(state[name])


class Optimizer(ABC):
    """Settings of an optimisation rule.

    Args:
        lr: learning rate; a number or a schedule over environment steps.
        max_grad_norm: gradients are scaled down to this 2-norm; ``None`` leaves them.
    """

    kind: ClassVar[str] = "optimizer"

    def __init__(self, lr: Schedule | float, max_grad_norm: float | None) -> None:
        self.lr, self.max_grad_norm = as_schedule(lr, "lr", 0), max_grad_norm

    @abstractmethod
    def build(self, parameter: nn.Parameter) -> Stepper:
        """A stepper for one (flat) parameter, whose ``grad`` is set."""
