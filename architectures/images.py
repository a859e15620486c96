"""Reading image observations: channel order, scaling, and the size of what convolutions leave."""

from __future__ import annotations

import numpy as np
import torch
from coach.architectures.encoding import is_image
from coach.core.errors import SettingError
from coach.core.spec import AnySpace
from gymnasium import spaces
from torch import Tensor, nn

_FEW = 16  # channels, as of stacked frames


class ImageReader(nn.Module):
    """Observations to float images ``[B, C, H, W]`` in [0, 1] (bytes) or as they are (floats).

    A channel-last image is told by its small last dimension, the common case without a frame stack.

    Args:
        space: a Box of three dimensions.
        owner: name of the embedder, for the error.
    """

    def __init__(self, space: AnySpace, owner: str) -> None:
        super().__init__()
        if not is_image(space):
            raise SettingError(
                "embedder",
                f"{owner} needs an image (a Box of 3 dimensions), but gets {space}",
                "Use the mlp embedder, or add an image wrapper to environment.wrappers.",
            )
        assert isinstance(space, spaces.Box)
        self.channels_last = space.shape[-1] < min(space.shape[:2])
        self.scale = 1 / 255 if space.dtype == np.uint8 else 1.0
        height, width, channels = (
            space.shape if self.channels_last else (*space.shape[1:], space.shape[0])
        )
        self.size = (channels, height, width)

    def forward(self, obs: Tensor) -> Tensor:
        if not self.channels_last and obs.dtype == torch.uint8 and self.size[0] <= _FEW:
            # Moving the channels while they are bytes takes a third of the time.
            obs = torch.stack(obs.unbind(1), -1)  # [B, H, W, C]
            return obs.float().mul_(self.scale).permute(0, 3, 1, 2)
        image = obs.permute(0, 3, 1, 2) if self.channels_last else obs  # [B, C, H, W]
        image = image.to(torch.float32, memory_format=torch.channels_last)
        return image * self.scale if self.scale != 1.0 else image


def flat_output(layers: nn.Module, size: tuple[int, int, int], owner: str) -> int:
    """Number of features that convolutional ``layers`` make of an image ``(C, H, W)``.

    Raises:
        SettingError: the image is too small for the network.
    """
    try:
        with torch.no_grad():
            return int(layers(torch.zeros(1, *size)).numel())
    except RuntimeError as error:
        raise SettingError(
            "embedder",
            f"an image of {size[1]} x {size[2]} pixels is too small for {owner}",
            "Use larger images (ResizeObservation), impala_cnn, or the mlp embedder.",
        ) from error
