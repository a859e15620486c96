"""A tree of sums: draw an index in proportion to its mass.

Every node has 16 children and keeps their running sums, so a million leaves are five levels deep
and each level of a whole batch is one gather and one comparison. A node is always recomputed from
its children, never adjusted by differences: rounding does not pile up however long a run is.

The loops are compiled where Numba is installed (``pip install 'coach-rl[numba]'``), and vectorised
NumPy elsewhere, with the same results to the last bit.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

compiled: ModuleType | None
try:
    from coach.memories import compiled
except ModuleNotFoundError:
    compiled = None

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
        self._starts = np.cumsum([0, *widths[:-1]])
        self._nodes = np.zeros(sum(widths))
        #: Masses from the leaves up; the last level has at most `FANOUT` nodes.
        self.levels = np.split(self._nodes, self._starts[1:])
        # Of every node the sums of its first 0, 1, ... 16 children, level by level; compiled loops
        # add them up on the way.
        self._running = [
            np.zeros((width // FANOUT, FANOUT + 1)) for width in widths if compiled is None
        ]

    @staticmethod
    def bytes_for(size: int) -> int:
        """Bytes that a tree of ``size`` leaves takes."""
        numbers = 1 if compiled is not None else 2 + 1 / FANOUT
        return int(size * 8 * numbers * FANOUT / (FANOUT - 1))

    @property
    def total(self) -> float:
        """Sum of all masses."""
        return float(self.levels[-1].cumsum()[-1])

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.levels[0].take(index)

    def __setitem__(self, index: NDArray[np.int64], mass: NDArray[np.float64] | float) -> None:
        if compiled is not None:
            masses = np.asarray(mass, np.float64)
            if masses.shape != index.shape:
                masses = np.broadcast_to(masses, index.shape)
            compiled.put(self._nodes, self._starts, index, masses)
            return
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
        if compiled is not None:
            found = np.empty(len(mass), np.int64)
            compiled.find(self._nodes, self._starts, mass.copy(), _JUST_BELOW_1, found)
            return found
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

    def stratified(
        self, uniform: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
        """One leaf out of each of as many equal shares of the total as there are numbers.

        Args:
            uniform: ``[B]`` numbers in [0, 1), where in its share each draw falls.

        Returns:
            The leaves ``[B]``, their masses ``[B]``, and the total.
        """
        count = len(uniform)
        if compiled is not None:
            found, mass = np.empty(count, np.int64), np.empty(count)
            total = compiled.stratified(
                self._nodes, self._starts, uniform, _JUST_BELOW_1, found, mass
            )
            return found, mass, total
        total = self.total
        found = self.find((np.arange(count) + uniform) * (total / count))
        return found, self[found], total

    def load(self, masses: NDArray[np.float64]) -> None:
        """Set all leaves at once."""
        self.levels[0][: self.size] = masses
        for number, level in enumerate(self.levels):
            sums = level.reshape(-1, FANOUT).cumsum(1)  # [nodes, 16]
            if self._running:
                self._running[number][:, 1:] = sums
            if number + 1 < len(self.levels):
                self.levels[number + 1][: len(sums)] = sums[:, -1]
