"""The residual convolutional network of IMPALA."""

from __future__ import annotations

import torch
from coach.architectures.embedder import Embedder
from coach.architectures.images import ChannelOrder, ImageReader, flat_output
from coach.architectures.linear import Linear
from coach.core.registry import register
from coach.core.schema import Count
from coach.core.spec import AnySpace
from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        residual: Tensor = self.layers(image)
        return image + residual


@register("embedder", "impala_cnn")
class ImpalaCNN(Embedder):
    """Blocks of convolution, pooling and two residual units (arXiv:1802.01561, figure 3).

    Works on images of any size from about 8 pixels.

    Args:
        channels: channels of each block.
        width: width of the dense layer behind them.
        channel_order: where the picture has its channels; auto guesses, and says so where the shape
            does not tell.
    """

    def __init__(
        self,
        space: AnySpace,
        channels: list[Count] = [16, 32, 32],  # noqa: B006 (a schema default, never changed)
        width: Count = 256,
        channel_order: ChannelOrder = "auto",
    ) -> None:
        super().__init__()
        self.read = ImageReader(space, "impala_cnn", channel_order)
        layers: list[nn.Module] = []
        inputs = self.read.size[0]
        for outputs in channels:
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.MaxPool2d(3, 2, padding=1),
                _Residual(outputs),
                _Residual(outputs),
            ]
            inputs = outputs
        body = nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Flatten())
        flat = flat_output(body, self.read, "impala_cnn")
        self.layers = nn.Sequential(*body, Linear(flat, width), nn.ReLU(inplace=True))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features = width

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.layers(self.read(obs))
        return features
