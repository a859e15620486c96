"""From an agent's action arrays to what an environment's ``step`` takes.

This is the only place where actions change their unit. Agents, memories and critics see each
bounded dimension of a Box as [-1, 1], so what is learned does not depend on the unit of the
environment. Dimensions without bounds are in the environment's own unit on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from coach.core.spec import AnySpace, box_bounds
from gymnasium import spaces
from numpy.typing import NDArray


def to_environment(space: AnySpace) -> Callable[[NDArray[Any]], list[Any]]:
    """A function from an action array ``[N, ...]`` to one action per environment.

    Discrete actions are shifted to the space's start. Box actions are scaled from [-1, 1] to the
    bounds, clipped, and given the space's shape and type; each integer of an integer Box gets an
    equal share of [-1, 1]. The others get the space's shape and type.
    """
    match space:
        case spaces.Discrete():
            start = int(space.start)
            if start:
                return lambda action: (action + start).tolist()
            return lambda action: action.tolist()
        case spaces.Box():
            fit = _integers(space) if np.dtype(space.dtype).kind in "iub" else _floats(space)
            shape = space.shape
            return lambda action: list(fit(action).reshape(-1, *shape))
        case spaces.MultiDiscrete():
            first, form = space.start.reshape(-1), space.dtype
            return lambda action: list((action + first).reshape(-1, *space.shape).astype(form))
    return lambda action: list(action.reshape(-1, *(space.shape or ())).astype(space.dtype))


def _floats(space: spaces.Box) -> Callable[[NDArray[Any]], NDArray[Any]]:
    low, high, bounded = box_bounds(space)
    unit_low, unit_high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    # Halves first: the distance of the bounds may be larger than the largest number.
    center, half_range = unit_low / 2 + unit_high / 2, unit_high / 2 - unit_low / 2
    dtype, lowest, highest = space.dtype, space.low.reshape(-1), space.high.reshape(-1)
    same = not center.any() and (half_range == 1).all()

    def scaled(action: NDArray[Any]) -> NDArray[Any]:
        value = action if same else center + half_range * action  # [N, D] float64
        clipped: NDArray[Any] = np.minimum(np.maximum(value, lowest), highest)
        return clipped.astype(dtype, copy=False)

    return scaled


def _integers(space: spaces.Box) -> Callable[[NDArray[Any]], NDArray[Any]]:
    low, high, bounded = box_bounds(space)
    count = np.where(bounded, high - low + 1, 1.0)
    dtype: np.dtype[Any] = np.dtype(space.dtype)
    if dtype.itemsize == 8:  # the largest float that such integers can hold
        high = np.minimum(high, np.nextafter(float(np.iinfo(dtype).max), 0))

    def chosen(action: NDArray[Any]) -> NDArray[Any]:
        share = np.floor((action.astype(np.float64) + 1) * (count / 2))
        value = np.where(bounded, low + np.minimum(share, count - 1), np.rint(action))
        clipped: NDArray[Any] = np.minimum(np.maximum(value, low), high)
        return clipped.astype(dtype)

    return chosen
