"""The apply contract: what happens to gradients once they are there."""

from __future__ import annotations

from typing import Protocol

from coach.core.flat import FlatParameters
from coach.core.optimizer import Stepper


class Apply(Protocol):
    """Turns the gradient of one flat parameter group into a step."""

    def __call__(self, stepper: Stepper, group: FlatParameters, lr: float) -> None:
        """Step ``group`` along its gradient."""


class Local:
    """This process steps its own parameters by its own gradient."""

    def __call__(self, stepper: Stepper, group: FlatParameters, lr: float) -> None:
        stepper.step(lr)
