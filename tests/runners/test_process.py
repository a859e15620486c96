"""What a process that learns is set up for."""

from __future__ import annotations

import ctypes
import resource
import sys

import pytest
import torch
from coach.runners.process import prepare_to_learn

_PAGE = resource.getpagesize()
_BLOCKS, _BLOCK = 4, 40 * 2**20  # larger than what glibc keeps by itself


def _pages_taken() -> int:
    """Pages that the system had to provide for blocks that are written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(_BLOCK, dtype=torch.uint8) for _ in range(_BLOCKS)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc"
)
def test_freed_memory_is_used_again() -> None:
    prepare_to_learn()
    # Aligned blocks leave pieces that small objects take, so the first rounds may need new pages.
    assert min(_pages_taken() for _ in range(20)) < _BLOCKS * _BLOCK // _PAGE // 10


def test_denormal_numbers_count_as_zero() -> None:
    prepare_to_learn()
    assert float(torch.full((8,), 1e-39).mul(0.5).sum()) == 0.0
