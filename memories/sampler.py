"""The sampler contract: which stored transitions a minibatch is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from coach.memories.stripes import Stripes
from torch import Tensor


class Sampler(ABC):
    """Draws indices from a replay memory's storage."""

    kind: ClassVar[str] = "sampler"
    #: Whether what it draws depends on the priorities that come back.
    learns: ClassVar[bool] = True
    #: Whether it reads what single steps hold, and so cannot deal in sequences of them.
    reads_steps: ClassVar[bool] = False

    def attach(self, stripes: Stripes) -> int:
        """Get to know the storage; returns the bytes that the sampler itself will take."""
        return 0

    def added(self, index: Tensor, dropped: Tensor, priority: Tensor | None = None) -> None:
        """Rows were written at ``index``; rows at ``dropped`` are no transitions any more.

        ``priority`` holds first priorities for the rows written, if whoever acted knew some; where
        it is negative, it was not known.
        """

    def ready(self, stripes: Stripes) -> bool:
        """Whether there is something to draw, given that something has been written."""
        return True

    @abstractmethod
    def draw(
        self, stripes: Stripes, count: int, step: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """``count`` indices and their importance weights (``None``: all 1).

        ``step`` is the number of environment steps written; schedules read it.
        """

    def feedback(self, index: Tensor, priority: Tensor) -> None:
        """Take the priorities ``[B]`` that the objectives found for rows; both are on the CPU."""

    def monitor(self, step: int) -> dict[str, float]:
        """Scalars worth logging."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything the sampler remembers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
