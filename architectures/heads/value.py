"""Expected return of a state."""

from __future__ import annotations

from coach.architectures.activations import Initializer, initialized
from coach.architectures.head import Head
from coach.architectures.linear import Linear
from coach.core.registry import register
from torch import Tensor


@register("head", "value")
class Value(Head):
    """The critic of actor-critic agents: ``[B, features]`` to ``[B]``.

    Args:
        init: "orthogonal" with gain 1, or torch's "default".
    """

    provides = "value"

    def __init__(self, features: int, init: Initializer = "orthogonal") -> None:
        super().__init__()
        self.out = initialized(Linear(features, 1), init, gain=1.0)

    def forward(self, features: Tensor) -> Tensor:
        value: Tensor = self.out(features)
        return value.squeeze(-1)
