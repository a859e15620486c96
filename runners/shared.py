"""Memory that several processes see, without a name that anyone could leave behind.

A block is an anonymous memory file (an unlinked temporary file where the system has none), passed
to workers as a file descriptor. It goes when the last process that holds it does, however that
one ends, and no limit on shared memory segments applies to it.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_ALIGNMENT = 64  # what torch aligns its own tensors to; kernels may round differently elsewhere


class SharedBlock:
    """``nbytes`` zeroed bytes that can be sent to a worker while it is being started.

    Args:
        nbytes: size.
        descriptor: of an existing block; left out, a new one is made.
    """

    def __init__(self, nbytes: int, descriptor: int | None = None) -> None:
        self.nbytes = max(nbytes, 1)
        self.descriptor = _anonymous(self.nbytes) if descriptor is None else descriptor
        self._map = mmap.mmap(self.descriptor, self.nbytes)
        self._used = 0

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The next tensor of the block; both sides must ask for the same ones in the same order."""
        begin = self._used
        self._used += aligned_bytes(shape, dtype)
        count = math.prod(shape)
        if not count:
            return torch.zeros(shape, dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=begin).view(shape)

    def again(self) -> SharedBlock:
        """The same memory, to be laid out once more; for workers that are threads."""
        return SharedBlock(self.nbytes, os.dup(self.descriptor))

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self.nbytes, reduction.DupFd(self.descriptor))

    def __del__(self) -> None:
        os.close(self.descriptor)  # the mapping lives on as long as tensors look into it


def share(lay_out: Callable[[Callable[[tuple[int, ...], torch.dtype], Tensor]], T]) -> SharedBlock:
    """A block that is large enough for what ``lay_out`` allocates from it."""
    total = 0

    def count(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        nonlocal total
        total += aligned_bytes(shape, dtype)
        return torch.zeros((), dtype=dtype).expand(shape)

    lay_out(count)
    return SharedBlock(total)


def aligned_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes that a tensor takes in a block."""
    return -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT


def _anonymous(nbytes: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("coach", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, nbytes)
    return descriptor


def _attach(nbytes: int, descriptor: Any) -> SharedBlock:
    return SharedBlock(nbytes, descriptor.detach())
