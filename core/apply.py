"""The apply contract: what happens to gradients once they are there."""

from __future__ import annotations

from typing import Protocol

import torch
from coach.core.flat import FlatParameters


class Apply(Protocol):
    """Turns the gradients of one flat parameter group into a step."""

    def __call__(self, optimizer: torch.optim.Optimizer, group: FlatParameters) -> None:
        """Step ``group`` along its gradient."""


class Local:
    """The optimiser of this process steps its own parameters."""

    def __call__(self, optimizer: torch.optim.Optimizer, group: FlatParameters) -> None:
        optimizer.step()
