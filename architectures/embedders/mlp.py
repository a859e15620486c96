"""Fully connected embedder."""

from __future__ import annotations

from coach.architectures.activations import Activation, Initializer
from coach.architectures.dense import Dense
from coach.architectures.embedder import Embedder
from coach.architectures.encoding import flat_encoder, flat_size
from coach.core.registry import register
from coach.core.schema import Count
from coach.core.spec import AnySpace
from torch import Tensor


@register("embedder", "mlp")
class MLP(Embedder):
    """Flattens the observation and passes it through dense layers.

    Args:
        hidden: widths of the layers; an empty list hands the flat observation on as it is.
        activation: after each layer.
        init: "default" is torch's own, "orthogonal" what PPO implementations use.
        layer_norm: normalise before each activation (arXiv:1607.06450).
    """

    def __init__(
        self,
        space: AnySpace,
        hidden: list[Count] = [64, 64],  # noqa: B006 (a schema default, never changed)
        activation: Activation = "relu",
        init: Initializer = "default",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.encode = flat_encoder(space)
        self.layers = Dense(flat_size(space), hidden, activation, init, layer_norm)
        self.features = hidden[-1] if hidden else flat_size(space)

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.layers(self.encode(obs))
        return features
