"""From an agent's action arrays to what an environment's ``step`` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from coach.core.spec import AnySpace
from gymnasium import spaces
from numpy.typing import NDArray


def to_environment(space: AnySpace) -> Callable[[NDArray[Any]], list[Any]]:
    """A function from an action array ``[N, ...]`` to one action per environment.

    Discrete actions are shifted to the space's start; Box actions are clipped to its bounds and
    given its shape and type; the others get the space's shape and type.
    """
    match space:
        case spaces.Discrete():
            start = int(space.start)
            if start:
                return lambda action: (action + start).tolist()
            return lambda action: action.tolist()
        case spaces.Box():
            low, high = space.low.reshape(-1), space.high.reshape(-1)
            shape, dtype = space.shape, space.dtype

            def bounded(action: NDArray[Any]) -> list[Any]:
                clipped = np.minimum(np.maximum(action, low), high).astype(dtype, copy=False)
                return list(clipped.reshape(-1, *shape))

            return bounded
        case spaces.MultiDiscrete():
            first, form = space.start.reshape(-1), space.dtype
            return lambda action: list((action + first).reshape(-1, *space.shape).astype(form))
    return lambda action: list(action.reshape(-1, *(space.shape or ())).astype(space.dtype))
