"""The convolutional network of the Nature DQN paper."""

from __future__ import annotations

import torch
from coach.architectures.activations import Initializer, initialized
from coach.architectures.embedder import Embedder
from coach.architectures.images import ChannelOrder, ImageReader, flat_output
from coach.architectures.linear import Linear
from coach.core.registry import register
from coach.core.schema import Count
from coach.core.spec import AnySpace
from torch import Tensor, nn


@register("embedder", "nature_cnn")
class NatureCNN(Embedder):
    """Three convolutions and a dense layer (Mnih et al., 2015, doi:10.1038/nature14236).

    Args:
        width: width of the dense layer; null has none, for heads with hidden layers of their own.
        init: "default" is torch's own, "orthogonal" what PPO implementations use.
        channel_order: where the picture has its channels; auto guesses, and says so where the shape
            does not tell.
    """

    def __init__(
        self,
        space: AnySpace,
        width: Count | None = 512,
        init: Initializer = "default",
        channel_order: ChannelOrder = "auto",
    ) -> None:
        super().__init__()
        self.read = ImageReader(space, "nature_cnn", channel_order)
        convolutions = nn.Sequential(
            initialized(nn.Conv2d(self.read.size[0], 32, 8, 4), init),
            nn.ReLU(inplace=True),
            initialized(nn.Conv2d(32, 64, 4, 2), init),
            nn.ReLU(inplace=True),
            initialized(nn.Conv2d(64, 64, 3, 1), init),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        inputs = flat_output(convolutions, self.read, "nature_cnn")
        dense = (
            []
            if width is None
            else [initialized(Linear(inputs, width), init), nn.ReLU(inplace=True)]
        )
        self.layers = nn.Sequential(*convolutions, *dense)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features = width or inputs

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.layers(self.read(obs))
        return features
