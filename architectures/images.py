"""Reading image observations: channel order, scaling, and the size of what convolutions leave."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from coach.architectures.encoding import IntegerScale, is_image
from coach.core.errors import SettingError
from coach.core.spec import AnySpace
from gymnasium import spaces
from torch import Tensor, nn

#: Where the channels of a picture are: in the first dimension, in the last, or to be guessed.
ChannelOrder: TypeAlias = Literal["auto", "first", "last"]

_FEW = 16  # channels, as of stacked frames


class ImageReader(nn.Module):
    """Observations to float images ``[B, C, H, W]``.

    Integers are scaled by the bounds of the space (`IntegerScale`), floats are left as they are.

    Args:
        space: a Box of three dimensions.
        owner: name of the embedder, for the error.
        channel_order: where they are. ``auto`` takes the smallest dimension, if it is the first or
            the last; else the one beside a square; else the last. `doubt` then says so.
    """

    def __init__(self, space: AnySpace, owner: str, channel_order: ChannelOrder = "auto") -> None:
        super().__init__()
        if not is_image(space):
            raise SettingError("embedder", *_no_image(space, owner))
        assert isinstance(space, spaces.Box)
        self.space = space
        last, sure = _channels_last(space.shape)
        self.channels_last = last if channel_order == "auto" else channel_order == "last"
        #: Whether the order of the channels was guessed, and may be wrong.
        self.doubtful = channel_order == "auto" and not sure
        self.scale = IntegerScale(space)
        offset, divisor = self.scale.offset, self.scale.divisor
        #: What all numbers are multiplied by, if that is all there is to do.
        self.factor = (
            1 / divisor if isinstance(divisor, float) and isinstance(offset, float) else None
        )
        if offset != 0:
            self.factor = None
        height, width, count = (
            space.shape if self.channels_last else (*space.shape[1:], space.shape[0])
        )
        self.size = (count, height, width)

    @property
    def doubt(self) -> str | None:
        """In words, how a picture is read whose order of channels is a guess."""
        if not self.doubtful:
            return None
        read, other = (
            ("height, width, channels", "first")
            if self.channels_last
            else ("channels, height, width", "last")
        )
        return (
            f"pictures of shape {self.space.shape} are read as {read}. If that is wrong, set "
            f"`channel_order: {other}` there"
        )

    def forward(self, obs: Tensor) -> Tensor:
        factor = self.factor
        if factor is None:
            obs, factor = self.scale(obs), 1.0
        if not self.channels_last and obs.dtype == torch.uint8 and self.size[0] <= _FEW:
            # Moving the channels while they are bytes takes a third of the time.
            obs = torch.stack(obs.unbind(1), -1)  # [B, H, W, C]
            return obs.float().mul_(factor).permute(0, 3, 1, 2)
        image = obs.permute(0, 3, 1, 2) if self.channels_last else obs  # [B, C, H, W]
        image = image.to(torch.float32, memory_format=torch.channels_last)
        return image * factor if factor != 1.0 else image


def _channels_last(shape: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether the channels of a picture seem to come last, and whether that is sure."""
    first, middle, last = shape
    if last < min(first, middle):
        return True, last != 0
    if first < min(middle, last):
        return False, True
    if first == middle != last:  # a square with many channels, such as 8 x 8 x 12
        return True, False
    if middle == last != first:
        return False, False
    return last <= first, False


def _no_image(space: AnySpace, owner: str) -> tuple[str, str]:
    """The text of an error and its remedy."""
    text = f"{owner} needs an image (a Box of 3 dimensions), but gets {space}"
    if isinstance(space, spaces.Box) and len(space.shape) == 2:
        return text, (
            "Set `embedder: mlp`, or give the picture a dimension of channels: "
            "`environment.wrappers: [{ReshapeObservation: "
            f"{{shape: [1, {space.shape[0]}, {space.shape[1]}]}}}}]`."
        )
    return text, "Set `embedder: mlp`."


def flat_output(layers: nn.Module, read: ImageReader, owner: str) -> int:
    """Number of features that convolutional ``layers`` make of an image.

    Raises:
        SettingError: the image is too small for the network.
    """
    channels, height, width = read.size
    try:
        with torch.no_grad():
            return int(layers(torch.zeros(1, channels, height, width)).numel())
    except RuntimeError as error:
        other = " or `embedder: impala_cnn`" if owner != "impala_cnn" else ""
        raise SettingError(
            "embedder",
            f"an image of {height} x {width} pixels is too small for {owner}",
            f"Set `embedder: mlp`{other}{_resizing(read)}.",
        ) from error


def _resizing(read: ImageReader) -> str:
    """The wrapper that enlarges a picture, where Gymnasium's can."""
    space = read.space
    if not read.channels_last or space.dtype.name != "uint8":
        return ""
    if space.low.any() or (space.high != 255).any():
        return ""
    return ", or enlarge it: `environment.wrappers: [{ResizeObservation: {shape: [84, 84]}}]`"
