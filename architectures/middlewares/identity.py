"""Middleware that does nothing."""

from __future__ import annotations

from coach.architectures.middleware import Middleware
from coach.core.batch import State
from coach.core.registry import register
from torch import Tensor


@register("middleware", "identity")
class Identity(Middleware):
    """Hands the embedders' features to the heads as they are."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.outputs = features

    def forward(
        self, features: Tensor, state: State = None, boundary: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return features, state
