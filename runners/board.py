"""The newest weights for actors to pick up: written by one process, read by many, never locked."""

from __future__ import annotations

import numpy as np
import torch
from coach.core.layout import Zeros
from coach.runners.shared import SharedBlock, share
from numpy.typing import NDArray
from torch import Tensor, nn

_CURRENT = 0  # which side is whole; the versions of both sides follow
_WRITING = -1


class WeightBoard:
    """Two copies of a module's parameters and buffers, written in turn, in shared memory.

    The writer marks a side, fills it, gives it its version and only then points readers to it. A
    reader that was overtaken twice while it copied sees that the version changed, and copies
    again; so it never keeps half of one version and half of another.

    Args:
        module: its weights are published, or replaced by published ones.
        block: of the board to attach to; left out, a new board is made.
    """

    def __init__(self, module: nn.Module, block: SharedBlock | None = None) -> None:
        self.mine: list[Tensor] = [t.data for t in (*module.parameters(), *module.buffers())]
        self.block = block or share(lambda zeros: [self._lay_out(zeros)])
        self._header, self._sides = self._lay_out(self.block.again().zeros)

    def publish(self, version: int) -> None:
        """Write the module's weights as ``version``."""
        header = self._header
        side = 1 - int(header[_CURRENT])
        header[1 + side] = _WRITING
        torch._foreach_copy_(self._sides[side], self.mine)
        header[1 + side] = version
        header[_CURRENT] = side

    def fetch(self, version: int) -> int:
        """Take over the newest weights unless they are of ``version``; returns their version."""
        header = self._header
        while True:
            side = int(header[_CURRENT])
            newest = int(header[1 + side])
            if newest == version:
                return version
            if newest == _WRITING:
                continue
            torch._foreach_copy_(self.mine, self._sides[side])
            if int(header[1 + side]) == newest:
                return newest

    def _lay_out(self, zeros: Zeros) -> tuple[NDArray[np.int64], list[list[Tensor]]]:
        header = zeros((3,), torch.int64).numpy()
        sides = [[zeros(tuple(t.shape), t.dtype) for t in self.mine] for _ in range(2)]
        return header, sides
