"""From an observation space to the numbers that an embedder reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from coach.core.spec import AnySpace, box_bounds, require_observation
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


def is_image(space: AnySpace) -> bool:
    """A Box of three dimensions: height, width and channels in either order."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3


def is_whole(space: AnySpace) -> bool:
    """A Box of integers or bools."""
    return isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "iub"


def flat_size(space: AnySpace) -> int:
    """Width of the vector that `flat_encoder` makes of one observation.

    Raises:
        SettingError: the space has no such form.
    """
    match space:
        case spaces.Box():
            return int(np.prod(space.shape))
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiDiscrete():
            return int(space.nvec.sum())
        case spaces.MultiBinary():
            return int(np.prod(space.shape))
    require_observation(space)
    raise TypeError(f"{space} is a Dict: it has an embedder for each key")


def flat_encoder(space: AnySpace) -> Callable[[Tensor], Tensor]:
    """A function from a batch of observations to float vectors ``[B, flat_size]``.

    Discrete values become one-hot vectors, integers of a Box are scaled, see `IntegerScale`.

    Raises:
        SettingError: the space has no such form.
    """
    if isinstance(space, spaces.Discrete):
        count, first = int(space.n), int(space.start)
        return lambda obs: functional.one_hot(obs.long() - first, count).float()
    if isinstance(space, spaces.MultiDiscrete):
        sizes = [int(size) for size in space.nvec.reshape(-1)]
        firsts = [int(first) for first in space.start.reshape(-1)]
        return lambda obs: torch.cat(
            [
                functional.one_hot(column - first, size).float()
                for column, first, size in zip(obs.flatten(1).long().unbind(-1), firsts, sizes)
            ],
            -1,
        )
    flat_size(space)
    return _FlatEncoder(space)


class _FlatEncoder(nn.Module):
    def __init__(self, space: AnySpace) -> None:
        super().__init__()
        self.scale, self.dims = IntegerScale(space), len(space.shape or ())

    def forward(self, obs: Tensor) -> Tensor:
        values: Tensor = self.scale(obs)
        if self.dims == 1:
            return values
        return values.flatten(-self.dims) if self.dims else values.unsqueeze(-1)


class IntegerScale(nn.Module):
    """Observations as floats; integers of a Box are brought near 1 by the bounds of the space.

    Where the bounds include 0, they are divided by the larger magnitude: [0, 1] comes of bounds 0
    and 255, [-1, 1] of -3 and 3, and 0 stays 0. Other bounds are brought to [0, 1]. Integers
    without bounds are left as they are, as are floats and the entries of other spaces.

    Args:
        space: of the observations.
    """

    offset: Tensor | float
    divisor: Tensor | float

    def __init__(self, space: AnySpace) -> None:
        super().__init__()
        offset, divisor = _integer_scale(space)
        for name, values in (("offset", offset), ("divisor", divisor)):
            if (values == values.flat[0]).all():
                setattr(self, name, float(values.flat[0]))
            else:
                self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations ``[B, ...]`` of any type to floats of the same shape."""
        values = obs.float()
        if isinstance(self.offset, Tensor) or self.offset != 0:
            values = values - self.offset
        if isinstance(self.divisor, Tensor) or self.divisor != 1:
            values = values / self.divisor
        return values


def _integer_scale(space: AnySpace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What to subtract and what to divide by, of the space's shape or ``[1]``."""
    if not (isinstance(space, spaces.Box) and is_whole(space) and space.low.size):
        return np.zeros(1), np.ones(1)
    low, high, bounded = box_bounds(space)
    around_zero = (low <= 0) & (high >= 0)
    offset = np.where(bounded & ~around_zero, low, 0.0)
    divisor = np.where(around_zero, np.maximum(-low, high), high - low)
    divisor = np.where(bounded & (divisor > 0), divisor, 1.0)
    return offset.reshape(space.shape), divisor.reshape(space.shape)
