"""From an observation space to the numbers that an embedder reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from coach.core.errors import SettingError
from coach.core.spec import AnySpace
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional


def is_image(space: AnySpace) -> bool:
    """A Box of three dimensions: height, width and channels in either order."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3


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
    raise SettingError(
        "environment",
        f"observations of type {type(space).__name__} are not supported",
        "Use Box, Discrete, MultiDiscrete, MultiBinary or Dict observations, for instance through "
        "Gymnasium's FlattenObservation: environment.wrappers: [FlattenObservation].",
    )


def flat_encoder(space: AnySpace) -> Callable[[Tensor], Tensor]:
    """A function from a batch of observations to float vectors ``[B, flat_size]``.

    Whole numbers become one-hot vectors, bytes are scaled to [0, 1].
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
    dims = len(space.shape or ())
    scale = 255.0 if getattr(space, "dtype", None) == np.uint8 else None

    def encode(obs: Tensor) -> Tensor:
        flat = obs.float()
        if dims != 1:
            flat = flat.flatten(-dims) if dims else flat.unsqueeze(-1)
        return flat / scale if scale else flat

    return encode
