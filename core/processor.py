"""What the processor can do, and what the libraries on it make of that."""

from __future__ import annotations

import torch


def onemkl_falls_behind() -> bool:
    """Whether torch's own products do without the AVX-512 that the processor has.

    oneMKL, to which torch leaves them, uses it on Intel's processors only.
    """
    by_onemkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if not by_onemkl or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    tell = getattr(torch.cpu, "get_capabilities", None)  # older versions have none
    return tell is not None and "Intel" not in str(tell().get("cpu_name", "Intel"))
