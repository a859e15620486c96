"""Prioritized experience replay's formulas (arXiv:1511.05952)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
