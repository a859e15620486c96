"""Convolutions as many as wanted, for pictures of any size."""

from __future__ import annotations

import torch
from coach.architectures.activations import Activation, activation_layer
from coach.architectures.dense import Dense
from coach.architectures.embedder import Embedder
from coach.architectures.images import ChannelOrder, ImageReader, flat_output
from coach.core.registry import register
from coach.core.schema import Count
from coach.core.spec import AnySpace
from torch import Tensor, nn


@register("embedder", "cnn")
class CNN(Embedder):
    """Convolutions with an activation behind each, then dense layers.

    The defaults are those of the MinAtar paper (arXiv:1903.03176).

    Args:
        layers: channels, kernel and stride of each convolution.
        hidden: widths of the dense layers behind them.
        activation: behind each layer.
        channel_order: where the picture has its channels; auto guesses, and says so where the shape
            does not tell.
    """

    def __init__(
        self,
        space: AnySpace,
        layers: list[tuple[Count, Count, Count]] = [(16, 3, 1)],  # noqa: B006 (a schema default)
        hidden: list[Count] = [128],  # noqa: B006 (a schema default, never changed)
        activation: Activation = "relu",
        channel_order: ChannelOrder = "auto",
    ) -> None:
        super().__init__()
        self.read = ImageReader(space, "cnn", channel_order)
        inputs, built = self.read.size[0], []
        for width, kernel, stride in layers:
            built += [nn.Conv2d(inputs, width, kernel, stride), activation_layer(activation)]
            inputs = width
        self.convolutions = nn.Sequential(*built, nn.Flatten())
        inputs = flat_output(self.convolutions, self.read, "cnn")
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dense = Dense(inputs, hidden, activation)
        self.features = hidden[-1] if hidden else inputs

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.dense(self.convolutions(self.read(obs)))
        return features
