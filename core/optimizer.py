"""The optimiser contract: which rule steps a flat parameter vector, how fast, clipped where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from coach.functional.schedules import Schedule, as_schedule
from torch import Tensor, nn


class Stepper(Protocol):
    """Steps one parameter along its gradient and remembers what its rule needs."""

    def step(self, lr: float) -> None:
        """Move the parameter."""

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and counts."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""


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


class TorchStepper:
    """A `torch.optim` optimiser over one parameter.

    Args:
        optimizer: it steps.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, lr: float) -> None:
        """Move the parameter."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and counts, as tensors."""
        slots = self.optimizer.state_dict()["state"].get(0, {})
        return {name: value for name, value in slots.items() if isinstance(value, Tensor)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict`."""
        whole = self.optimizer.state_dict()
        whole["state"] = {0: {k: v.clone() for k, v in state.items()}} if state else {}
        self.optimizer.load_state_dict(whole)
