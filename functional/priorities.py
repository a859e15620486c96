"""Prioritized experience replay's formulas (arXiv:1511.05952), and priorities of sequences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def priority_mass(
    priority: NDArray[np.float64], alpha: float, epsilon: float
) -> NDArray[np.float64]:
    """``(|delta| + epsilon) ** alpha``: what a row weighs in the draw (section 3.3, eq. 1)."""
    return np.asarray((np.abs(priority) + epsilon) ** alpha)


def importance_weights(
    probability: NDArray[np.float64], size: int, beta: float
) -> NDArray[np.float64]:
    """``(N * P(i)) ** -beta``, divided by the batch's largest (section 3.4)."""
    weight = (size * probability) ** -beta
    return np.asarray(weight / weight.max())


def sequence_priority(error: Tensor, eta: float) -> Tensor:
    """``eta * max_t |delta_t| + (1 - eta) * mean_t |delta_t|`` (R2D2, ICLR 2019, section 2.3).

    A mean alone is nearly the same for all long sequences; the largest error keeps them apart.

    Args:
        error: ``[L, M]`` temporal differences of ``M`` sequences.
        eta: share of the largest.

    Returns:
        ``[M]``.
    """
    size = error.abs()
    return eta * size.amax(0) + (1 - eta) * size.mean(0)
