"""The newest weights for actors to pick up: written by one process, read by many, never locked."""

from __future__ import annotations

import math
import threading
from time import monotonic
from typing import cast

import numpy as np
import torch
from coach.core.device import fetch, upload
from coach.core.layout import Zeros
from coach.runners.shared import SharedBlock, share
from coach.runners.weights import (
    TransferError,
    check_layout,
    checksum,
    layout_digest,
)
from numpy.typing import NDArray
from torch import Tensor, nn

# The header: which side is whole; for both sides how many were published when it was written, the
# version that it holds and a checksum; and the digest of the layout.
_CURRENT, _COUNT, _VERSION, _CHECKSUM, _LAYOUT = 0, 1, 3, 5, 7
_WRITING = -1
_UNCHECKED = -1  # in place of a checksum
#: Seconds between two publications with a checksum, which takes about as long as the copy.
_CHECK_SECONDS = 10.0


class WeightBoard:
    """Two copies of a module's parameters and buffers, written in turn, in shared memory.

    The writer marks a side, fills it, gives it its number and only then points readers to it. A
    reader that was overtaken twice while it copied sees that the number changed, and copies again;
    so it never keeps half of one set of weights and half of another. Numbers count publications and
    not versions, since running statistics change without an update.

    Weights lie in the order of their names. A reader verifies the layout when it attaches, and the
    checksum of those publications that have one: the first, and then one every ten seconds.

    Tensors are looked up by name each time, since a module may replace its buffers. What a module
    of it lists in ``learner_only`` is left out: names of buffers that acting never reads.

    Args:
        module: its weights are published, or replaced by published ones; its submodules stay.
        block: of the board to attach to; left out, a new board is made.

    Raises:
        TransferError: the board was made for a module of another layout.
    """

    def __init__(self, module: nn.Module, block: SharedBlock | None = None) -> None:
        self._places = _places_in(module)
        named = {name: holder[key] for name, (holder, key) in self._places.items()}
        mine = list(named.values())
        self._known: list[Tensor] = mine  # whose shapes and types are as laid out
        self._layout = [(tuple(t.shape), t.dtype) for t in mine]
        self.block = block or share(lambda zeros: [self._lay_out(zeros)])
        self._header, self._sides = self._lay_out(self.block.again().zeros)
        self._count, self._version = 0, -1
        self._device = mine[0].device if mine else torch.device("cpu")
        self._checked = -math.inf  # when a checksum was last published
        self._fence = threading.Lock()
        if block is None:
            self._header[_LAYOUT] = layout_digest(named)
        else:
            check_layout(int(self._header[_LAYOUT]), named)

    @torch.no_grad()
    def publish(self, version: int) -> None:
        """Write the module's weights as ``version``.

        Raises:
            TransferError: a buffer was replaced by one of another shape or type.
        """
        mine = self._weights()
        header = self._header
        side = 1 - int(header[_CURRENT])
        self._count += 1
        header[_COUNT + side] = _WRITING
        self._order()
        torch._foreach_copy_(self._sides[side], fetch(mine))
        header[_VERSION + side] = version
        header[_CHECKSUM + side] = self._checksum_now(side)
        self._order()
        header[_COUNT + side] = self._count
        header[_CURRENT] = side

    @torch.no_grad()
    def fetch(self) -> int:
        """Take over the newest weights, unless they have been; returns their version.

        Raises:
            TransferError: they were damaged, or a buffer was replaced by one of another form.
        """
        header = self._header
        while True:
            side = int(header[_CURRENT])
            newest = int(header[_COUNT + side])
            if newest == self._count:
                return self._version
            if newest == _WRITING:
                continue
            self._order()
            mine = self._weights()
            torch._foreach_copy_(mine, upload(self._sides[side], self._device))
            version, expected = int(header[_VERSION + side]), int(header[_CHECKSUM + side])
            self._order()
            if int(header[_COUNT + side]) == newest:
                if expected != _UNCHECKED and expected != checksum(fetch(mine)):
                    raise TransferError("Published weights were damaged on their way to an actor.")
                self._count, self._version = newest, version
                return version

    def _checksum_now(self, side: int) -> int:
        now = monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return _UNCHECKED
        self._checked = now
        return checksum(self._sides[side])

    def _order(self) -> None:
        """Keep reads and writes in order on processors that would swap them (ARM)."""
        for _ in range(2):
            self._fence.acquire()
            self._fence.release()

    def _lay_out(self, zeros: Zeros) -> tuple[NDArray[np.int64], list[list[Tensor]]]:
        header = zeros((8,), torch.int64).numpy()
        sides = [[zeros(shape, dtype) for shape, dtype in self._layout] for _ in range(2)]
        return header, sides

    def _weights(self) -> list[Tensor]:
        """The module's tensors as they are now, in the order of their names."""
        mine = [holder[key] for holder, key in self._places.values()]
        for i, (now, known) in enumerate(zip(mine, self._known)):
            if now is not known and (tuple(now.shape), now.dtype) != self._layout[i]:
                raise TransferError(
                    f"'{list(self._places)[i]}' is {_form(tuple(now.shape), now.dtype)} now, but "
                    f"was {_form(*self._layout[i])} when actors were started.",
                    "Keep its shape and type. If acting never reads it, list its name in the "
                    "class attribute learner_only of its module.",
                )
        self._known = mine
        return mine


def _places_in(module: nn.Module) -> dict[str, tuple[dict[str, Tensor], str]]:
    """Where each parameter and buffer that is published is kept, in the order of their names."""
    places: dict[str, tuple[dict[str, Tensor], str]] = {}
    shared: set[int] = set()
    for prefix, part in module.named_modules():
        left_out = getattr(part, "learner_only", ())
        for holder in (part._parameters, part._buffers):
            for key, tensor in holder.items():
                if tensor is None or id(tensor) in shared or key in left_out:
                    continue
                shared.add(id(tensor))
                places[f"{prefix}.{key}" if prefix else key] = cast(dict[str, Tensor], holder), key
    return dict(sorted(places.items()))


def _form(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{list(shape)} of {str(dtype).removeprefix('torch.')}"
