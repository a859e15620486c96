"""The true final observations of episodes, beside a ring that holds every observation once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.batch import map_tree
from coach.core.layout import allocate, as_numpy, assign
from numpy.typing import NDArray


class Finals:
    """A table of observations for some of the rows of a ring; slots of dropped rows are reused.

    Args:
        layout: of one observation.
        rows: number of rows of the ring.
    """

    def __init__(self, layout: Any, rows: int) -> None:
        self.slot_of = torch.full((rows,), -1, dtype=torch.int32)
        self.table = allocate(layout, 0)
        self._none = as_numpy(self.table)
        self._size = 0
        self._free: list[int] = []

    def drop(self, index: Any) -> None:
        """Forget what is kept for these rows."""
        if not self._size:
            return
        slots = self.slot_of.numpy()[index]
        held = slots >= 0
        if held.any():
            self._free.extend(slots[held].tolist())
            self.slot_of.numpy()[index] = -1

    def keep(self, index: Any, observations: Any) -> None:
        """Keep an observation for each of these rows."""
        short = len(index) - len(self._free)
        if short > 0:
            # Doubling keeps the cost of growing small beside that of the rows themselves.
            grown = max(64, self._size * 2, self._size + short)
            self.table = map_tree(
                lambda t: torch.cat([t, t.new_zeros(grown - len(t), *t.shape[1:])]), self.table
            )
            self._free.extend(range(grown - 1, self._size - 1, -1))
            self._size = grown
        slots = [self._free.pop() for _ in range(len(index))]
        self.slot_of.numpy()[index] = slots
        assign(as_numpy(self.table), slots, observations)

    def of(self, index: NDArray[np.int64]) -> Any:
        """Arrays of what is kept for these rows; all of them must have something."""
        if not len(index):
            return self._none
        slots = self.slot_of.numpy()[index]
        return map_tree(lambda table: table.take(slots, 0), as_numpy(self.table))
