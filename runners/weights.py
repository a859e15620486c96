"""Weights on their way to another process: the layout they travel in, and checks on arrival.

Both sides order tensors by name, whatever the order of their own dictionaries. A state that comes
from a checkpoint is in another order than that of a fresh module. The layout (names, shapes, types)
has a digest and the numbers have a checksum; the receiver verifies both.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from coach.core.errors import CoachError
from coach.core.layout import Zeros
from torch import Tensor

#: Shapes and types of tensors, by name.
Layout: TypeAlias = dict[str, tuple[tuple[int, ...], torch.dtype]]


class TransferError(CoachError):
    """Weights that arrived in another process are not those that were sent."""


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Shape and type of every tensor, in the order of their names."""
    return {name: (tuple(t.shape), t.dtype) for name, t in sorted(tensors.items())}


def layout_digest(tensors: Mapping[str, Tensor]) -> int:
    """A number that stands for the names, shapes and types of tensors, whatever their order."""
    text = repr(list(layout_of(tensors).items()))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def checksum(tensors: Iterable[Tensor]) -> int:
    """CRC-32 of the numbers in tensors, one after the other."""
    value = 0
    for tensor in tensors:
        data: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        value = zlib.crc32(data, value)
    return value


def check_layout(sent: int, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights whose layout is not that of ``tensors``.

    Args:
        sent: the sender's `layout_digest`.
        tensors: what the receiver expects.

    Raises:
        TransferError: the digests differ.
    """
    check_same(sent, layout_digest(tensors))


def check_same(sent: int, mine: int) -> None:
    """Refuse weights whose layout has another digest than the receiver's.

    Raises:
        TransferError: the digests differ.
    """
    if sent != mine:
        raise TransferError(
            "Weights of another process have other names, shapes or types than those here.",
            "The agent must be built the same way in every process: from its settings alone.",
        )


class SharedWeights:
    """Named tensors in shared memory, with a digest of their layout and a checksum.

    Args:
        layout: of the tensors, as the sender has them; the receiver uses the same one.
        zeros: allocates from the shared block.
    """

    def __init__(self, layout: Layout, zeros: Zeros) -> None:
        self.layout = layout
        self._head = zeros((2,), torch.int64)  # digest of the layout, checksum
        self._tensors = {name: zeros(*layout[name]) for name in sorted(layout)}

    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights into the shared memory.

        Raises:
            TransferError: they do not have the names, shapes and types of the layout.
        """
        check_layout(layout_digest(weights), self._tensors)
        for name, tensor in self._tensors.items():
            tensor.copy_(weights[name])
        self._head[0] = layout_digest(self._tensors)
        self._head[1] = checksum(self._tensors.values())

    def read(self) -> dict[str, Tensor]:
        """The weights that were written last.

        Raises:
            TransferError: they have another layout, or are damaged.
        """
        check_layout(int(self._head[0]), self._tensors)
        if checksum(self._tensors.values()) != int(self._head[1]):
            raise TransferError("Weights were damaged on their way from another process.")
        return self._tensors
