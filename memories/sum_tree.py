"""A tree of sums: draw an index in proportion to its mass, in vectorised NumPy.

Every node has 16 children and keeps their running sums, so a million leaves are five levels deep
and each level of a whole batch is one gather and one comparison. A node is always recomputed from
its children, never adjusted by differences: rounding does not pile up however long a run is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FANOUT = 16
_JUST_BELOW_1 = 1 - 2.0**-52


class SumTree:
    """Non-negative masses of ``size`` leaves, in float64.

    Args:
        size: number of leaves.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        widths = [-(-size // FANOUT) * FANOUT]
        while widths[-1] > FANOUT:
            widths.append(-(-(widths[-1] // FANOUT) // FANOUT) * FANOUT)
        #: Masses from the leaves up; the last level has at most `FANOUT` nodes.
        self.levels = [np.zeros(width) for width in widths]
        # Of every node the sums of its first 0, 1, ... 16 children, level by level.
        self._running = [np.zeros((width // FANOUT, FANOUT + 1)) for width in widths]

    @staticmethod
    def bytes_for(size: int) -> int:
        """Bytes that a tree of ``size`` leaves takes."""
        return int(size * 8 * (2 + 1 / FANOUT) * FANOUT / (FANOUT - 1))

    @property
    def total(self) -> float:
        """Sum of all masses."""
        return float(self._running[-1][:, -1].sum())

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(self.levels[0][index])

    def __setitem__(self, index: NDArray[np.int64], mass: NDArray[np.float64] | float) -> None:
        self.levels[0][index] = mass
        for number, (level, running) in enumerate(zip(self.levels, self._running)):
            node = index // FANOUT
            sums = level.reshape(-1, FANOUT).take(node, 0).cumsum(1)
            running[node, 1:] = sums
            if number + 1 < len(self.levels):
                self.levels[number + 1][node] = sums[:, -1]
            index = node

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each number in [0, total), the leaf whose share of the running sum it falls into."""
        node = np.zeros(len(mass), np.int64)
        left = mass.copy()
        for running in reversed(self._running):
            sums = running.take(node, 0)  # [B, 17]
            # Rounding must not step past the last child with mass.
            np.minimum(left, sums[:, -1] * _JUST_BELOW_1, out=left)
            # One without mass is never chosen: its sum does not exceed the one before.
            child = (sums[:, 1:] > left[:, None]).argmax(1)
            left -= running.reshape(-1).take(node * (FANOUT + 1) + child)
            node = node * FANOUT + child
        return node

    def load(self, masses: NDArray[np.float64]) -> None:
        """Set all leaves at once."""
        self.levels[0][: self.size] = masses
        for number, (level, running) in enumerate(zip(self.levels, self._running)):
            running[:, 1:] = level.reshape(-1, FANOUT).cumsum(1)
            if number + 1 < len(self.levels):
                self.levels[number + 1][: len(running)] = running[:, -1]
