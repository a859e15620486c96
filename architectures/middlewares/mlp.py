"""Fully connected middleware."""

from __future__ import annotations

from coach.architectures.activations import Activation, Initializer
from coach.architectures.dense import Dense
from coach.architectures.middleware import Middleware
from coach.core.batch import State
from coach.core.registry import register
from coach.core.schema import Count
from torch import Tensor


@register("middleware", "mlp")
class MLP(Middleware):
    """Dense layers over the merged features; useful where several embedders meet.

    Args:
        hidden: widths of the layers.
        activation: after each layer.
        init: "default" is torch's own, "orthogonal" what PPO implementations use.
    """

    def __init__(
        self,
        features: int,
        hidden: list[Count] = [128],  # noqa: B006 (a schema default, never changed)
        activation: Activation = "relu",
        init: Initializer = "default",
    ) -> None:
        super().__init__()
        self.layers = Dense(features, hidden, activation, init)
        self.outputs = hidden[-1] if hidden else features

    def forward(
        self, features: Tensor, state: State = None, boundary: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return self.layers(features), state
