"""A tree of sums: draw an index in proportion to its mass, in vectorised NumPy.

Every node has 16 children, so a million leaves are five levels deep and each level of a whole
batch is one gather, one running sum and one comparison. A node is always recomputed as the sum of
its children, never adjusted by differences: rounding does not pile up however long a run is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FANOUT = 16


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
        #: From the leaves up; the last level has at most `FANOUT` nodes.
        self.levels = [np.zeros(width) for width in widths]

    @staticmethod
    def bytes_for(size: int) -> int:
        """Bytes that a tree of ``size`` leaves takes."""
        return int(size * 8 * FANOUT / (FANOUT - 1))

    @property
    def total(self) -> float:
        """Sum of all masses."""
        return float(self.levels[-1].sum())

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(self.levels[0][index])

    def __setitem__(self, index: NDArray[np.int64], mass: NDArray[np.float64] | float) -> None:
        self.levels[0][index] = mass
        for below, above in zip(self.levels, self.levels[1:]):
            index = index // FANOUT
            above[index] = below.reshape(-1, FANOUT)[index].sum(-1)

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each number in [0, total), the leaf whose share of the running sum it falls into."""
        node = np.zeros(len(mass), np.int64)
        left = mass.copy()
        for level in reversed(self.levels):
            running = level.reshape(-1, FANOUT)[node].cumsum(-1)  # [B, 16]
            # A leaf without mass is never chosen: its running sum does not exceed the one before.
            child = (running <= left[:, None]).sum(-1)
            last = FANOUT - 1 - (level.reshape(-1, FANOUT)[node][:, ::-1] > 0).argmax(-1)
            child = np.minimum(child, last)  # rounding may step past the last leaf with mass
            before = np.where(
                child > 0,
                np.take_along_axis(running, np.maximum(child - 1, 0)[:, None], 1)[:, 0],
                0.0,
            )
            left = left - before
            node = node * FANOUT + child
        return node

    def load(self, masses: NDArray[np.float64]) -> None:
        """Set all leaves at once."""
        self.levels[0][: self.size] = masses
        for below, above in zip(self.levels, self.levels[1:]):
            sums = below.reshape(-1, FANOUT).sum(-1)
            above[: len(sums)] = sums
