"""The apply contract: what happens to gradients once they are there."""

from __future__ import annotations

from typing import Protocol

from coach.core.flat import FlatParameters
from coach.core.optimizer import Stepper
from torch import Tensor


class Apply(Protocol):
    """Turns the gradient of one flat parameter group into a step."""

    def __call__(
        self, stepper: Stepper, group: FlatParameters, lr: float, max_norm: float | None
    ) -> Tensor | None:
        """Clip the gradient to ``max_norm`` and step along it.

        Returns:
            The square of the norm that it had, if there was a limit to it.
        """


class Local:
    """This process steps its own parameters by its own gradient."""

    def __call__(
        self, stepper: Stepper, group: FlatParameters, lr: float, max_norm: float | None
    ) -> Tensor | None:
        square = group.clip(max_norm)
        stepper.step(lr)
        return square
