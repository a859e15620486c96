"""Predicted changes of measurements, and what they are worth under a goal."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coach.functional.values import ScalarValues
from torch import Tensor


@dataclass
class Futures:
    """How much each of ``M`` measurements is expected to change until ``O`` later steps.

    Args:
        mean: ``[B, A, O, M]``, for every action that may be taken now.
        allowed: ``[B, A]`` which actions are allowed; ``None``: all.
    """

    mean: Tensor
    allowed: Tensor | None = None

    def masked(self, allowed: Tensor) -> Futures:
        """The same predictions, of which only actions that are ``allowed`` ``[B, A]`` count."""
        return replace(self, allowed=allowed)

    def towards(self, goal: Tensor) -> ScalarValues:
        """Action values: the changes weighed by a goal and summed (arXiv:1611.01779, eq. 3, 5).

        Args:
            goal: ``[O, M]``, or ``[B, O, M]`` for goals that differ.
        """
        worth = (self.mean * goal.unsqueeze(-3)).sum((-2, -1))  # [B, A]
        values = ScalarValues(worth, huber_delta=0.0)
        return values if self.allowed is None else values.masked(self.allowed)
