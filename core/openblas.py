"""The BLAS that NumPy brings, as far as NumPy has no words for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

Array: TypeAlias = NDArray[np.float32]

# Of the interface of BLAS for C.
_ROW_BY_ROW, _AS_IT_IS = 101, 111
# Kernels that use AVX-512.
_WIDE = ("SkylakeX", "Cooperlake", "Sapphirerapids", "Zen4", "Zen5")

#: What is loaded of it, as threadpoolctl knows it.
LIBRARIES: list[Any] = list(ThreadpoolController().select(internal_api="openblas").lib_controllers)


def is_wide() -> bool:
    """Whether it makes use of AVX-512."""
    return any(library.architecture in _WIDE for library in LIBRARIES)


def use_threads(count: int) -> None:
    """Have it use so many threads from now on."""
    for library in LIBRARIES:
        library.set_num_threads(count)


def find_batch() -> Batch | None:
    """Its function for several products at once, if it has one."""
    for library in LIBRARIES:
        with suppress(AttributeError):
            return Batch(library)
    return None


class Batch:
    """OpenBLAS's own function for several products at once, each made by one thread.

    Its threads share out a single product so that each reads what the other has prepared, which
    takes long where they have no cache in common. Of several products each has its own, and so has
    each part of one that is split by rows. With kernels for AVX-512 the sums are those of one
    thread.

    Args:
        library: as threadpoolctl knows it.

    Raises:
        AttributeError: it has none.
    """

    #: Multiplications of each that are too few: up to a million it takes another way, which calls
    #: an address that is none (mended in OpenBLAS by pull request 5980, August 2026).
    LEAST = 2**20

    def __init__(self, library: Any) -> None:
        for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", "")):
            name = f"{prefix}cblas_sgemm_batch{suffix}"
            if hasattr(library.dynlib, name):
                break
        self._function = getattr(library.dynlib, name)
        config = getattr(library.dynlib, f"{prefix}openblas_get_config{suffix}")
        config.restype = ctypes.c_char_p
        wide = b"USE64BITINT" in config()
        self._integer = ctypes.c_int64 if wide else ctypes.c_int32

    def __call__(
        self, left: Array, right: Array, out: Array, threads: int
    ) -> Callable[[], Any] | None:
        """Writes ``left @ right`` to ``out`` whenever it is called; None if it is too small."""
        if out.ndim == 2:
            left, right, out = left[None], right[None], out[None]
        if out.strides[2] != out.itemsize:  # it lies column by column
            left, right, out = (array.swapaxes(1, 2) for array in (right, left, out))
        members, rows, columns = out.shape
        inner = left.shape[2]
        parts = 1 if members % threads == 0 else threads
        step = -(-rows // parts)
        least = min(step, rows - (parts - 1) * step) * columns * inner
        orders = [_order(array) for array in (left, right, out)]
        if least <= self.LEAST or None in orders:
            return None
        spans = [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
        pieces = [(left[m, s], right[m], out[m, s]) for m in range(members) for s in spans]
        count = len(pieces)
        turned, apart = zip(*orders)
        integers, floats = self._integer * count, ctypes.c_float * count
        places = [
            (ctypes.c_void_p * count)(*(arrays[n].ctypes.data for arrays in pieces))
            for n in range(3)
        ]
        arguments = (
            ctypes.c_int(_ROW_BY_ROW),
            *((ctypes.c_int * count)(*[_AS_IT_IS + turned[n]] * count) for n in range(2)),
            integers(*(len(arrays[0]) for arrays in pieces)),
            *(integers(*[size] * count) for size in (columns, inner)),
            floats(*[1.0] * count),
            *(part for n in range(2) for part in (places[n], integers(*[apart[n]] * count))),
            floats(*[0.0] * count),
            *(places[2], integers(*[apart[2]] * count)),
            *(self._integer(count), integers(*[1] * count)),
        )
        function = self._function

        def make(_: Any = (left, right, out)) -> None:  # whose memory it must not outlive
            function(*arguments)

        return make


def _order(array: Array) -> tuple[int, int] | None:
    """Whether matrices ``[members, rows, columns]`` are transposed, and how far rows are apart."""
    rows, columns = (stride // array.itemsize for stride in array.strides[1:])
    if columns == 1 and rows >= array.shape[2]:
        return 0, rows
    if rows == 1 and columns >= array.shape[1]:
        return 1, columns
    return None
