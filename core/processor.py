"""What the processor is good at, and what the libraries on it do not know about that."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CORE = "OPENBLAS_CORETYPE"
#: What OpenBLAS's kernels for AVX-512 are made of.
_WIDE = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_BEGINNING = 16_384  # bytes that describe at least the first processor


def use_wide_vectors(about: Path = Path("/proc/cpuinfo")) -> None:
    """Have OpenBLAS, NumPy's library for products, use AVX-512 where it would not by itself.

    It goes by the processor's name, so it takes those that are younger than it is for old ones. It
    reads the environment once, so this is to be called before NumPy is imported; processes that
    are started later inherit it. A choice that is there already stays.

    Args:
        about: how Linux describes the processor; elsewhere nothing is done.
    """
    if _CORE in os.environ or platform.machine() != "x86_64":
        return
    try:
        with about.open() as file:
            lines = file.read(_BEGINNING).splitlines()
    except OSError:
        return
    known = {name.strip(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
    if known.get("vendor_id") != "GenuineIntel" and set(known.get("flags", "").split()) >= _WIDE:
        os.environ[_CORE] = "SkylakeX"


def onemkl_falls_behind() -> bool:
    """Whether torch's own products do without the AVX-512 that the processor has.

    oneMKL, to which torch leaves them, uses it on Intel's processors only.
    """
    import torch

    by_onemkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if not by_onemkl or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    tell = getattr(torch.cpu, "get_capabilities", None)  # older versions have none
    return tell is not None and "Intel" not in str(tell().get("cpu_name", "Intel"))
