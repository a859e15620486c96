"""The newest weights for actors to pick up: written by one process, read by many, never locked."""

from __future__ import annotations

import threading

import numpy as np
import torch
from coach.core.device import fetch, upload
from coach.core.layout import Zeros
from coach.runners.shared import SharedBlock, share
from numpy.typing import NDArray
from torch import Tensor, nn

# The header: which side is whole; for both sides how many were published when it was written, and
# the version that it holds.
_CURRENT, _COUNT, _VERSION = 0, 1, 3
_WRITING = -1


class WeightBoard:
    """Two copies of a module's parameters and buffers, written in turn, in shared memory.

    The writer marks a side, fills it, gives it its number and only then points readers to it. A
    reader that was overtaken twice while it copied sees that the number changed, and copies again;
    so it never keeps half of one set of weights and half of another. Numbers count publications and
    not versions, since running statistics change without an update.

    Args:
        module: its weights are published, or replaced by published ones.
        block: of the board to attach to; left out, a new board is made.
    """

    def __init__(self, module: nn.Module, block: SharedBlock | None = None) -> None:
        self.mine: list[Tensor] = [t.data for t in (*module.parameters(), *module.buffers())]
        self.block = block or share(lambda zeros: [self._lay_out(zeros)])
        self._header, self._sides = self._lay_out(self.block.again().zeros)
        self._count, self._version = 0, -1
        self._device = self.mine[0].device if self.mine else torch.device("cpu")
        self._fence = threading.Lock()

    def publish(self, version: int) -> None:
        """Write the module's weights as ``version``."""
        header = self._header
        side = 1 - int(header[_CURRENT])
        self._count += 1
        header[_COUNT + side] = _WRITING
        self._order()
        torch._foreach_copy_(self._sides[side], fetch(self.mine))
        header[_VERSION + side] = version
        self._order()
        header[_COUNT + side] = self._count
        header[_CURRENT] = side

    def fetch(self) -> int:
        """Take over the newest weights, unless they have been; returns their version."""
        header = self._header
        while True:
            side = int(header[_CURRENT])
            newest = int(header[_COUNT + side])
            if newest == self._count:
                return self._version
            if newest == _WRITING:
                continue
            self._order()
            torch._foreach_copy_(self.mine, upload(self._sides[side], self._device))
            version = int(header[_VERSION + side])
            self._order()
            if int(header[_COUNT + side]) == newest:
                self._count, self._version = newest, version
                return version

    def _order(self) -> None:
        """Keep reads and writes in order on processors that would swap them (ARM)."""
        for _ in range(2):
            self._fence.acquire()
            self._fence.release()

    def _lay_out(self, zeros: Zeros) -> tuple[NDArray[np.int64], list[list[Tensor]]]:
        header = zeros((5,), torch.int64).numpy()
        sides = [[zeros(tuple(t.shape), t.dtype) for t in self.mine] for _ in range(2)]
        return header, sides
