"""Products of matrices by oneDNN, on the processors where torch's own are slow.

torch leaves products, and functions such as tanh, to oneMKL. On processors that are not Intel's
that library does without AVX-512, so products of large matrices take twice the time that they
could, and tanh five times. oneDNN, which torch has for convolutions, makes no such difference.
Which of them makes a product depends on the processor and on shapes alone, never on a clock, so
that the same work has the same bits. They are those of processes where `coach.core.blas` makes
none, because torch has several threads there, or NumPy an OpenBLAS without kernels for AVX-512.
"""

from __future__ import annotations

from typing import Literal

import torch
from coach.core.processor import onemkl_falls_behind
from torch import Tensor

Activation = Literal["none", "relu", "tanh"]

# Multiplications from which on oneDNN's product is the faster one, though it needs 10 microseconds
# to begin with (with two threads little is gained below twice as many), and results from which on
# its tanh makes up for that.
_PRODUCT, _TANH = 2**22, 2**13


def _is_faster() -> bool:
    return onemkl_falls_behind() and works()


def works() -> bool:
    """Whether this torch has it, with the operator that is used here."""
    one = torch.ones(1, 1)
    try:
        return bool(linear(one, one, one[0]) == 2)
    except (AttributeError, RuntimeError, TypeError):  # of torch's own, so it may change
        return False


def linear(
    inputs: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none"
) -> Tensor:
    """``activation(inputs @ weight.T + bias)`` for ``[B, in]``, ``[out, in]``, ``[out]``.

    Autograd knows nothing of it. Tensors are of 32-bit numbers, on CPU; both may be transposed.
    """
    made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, activation, [], "")
    return made


#: Whether this is a processor on which it is worth while.
FASTER = _is_faster()


def pays(left: Tensor, columns: int, activation: Activation = "none") -> bool:
    """Whether to make the product of ``left`` ``[..., B, in]`` and ``[..., in, columns]`` here."""
    if not (FASTER and left.is_cpu and left.dtype == torch.float32):
        return False
    rows, inputs = left.shape[-2:]
    return rows * inputs * columns >= _PRODUCT or (activation == "tanh" and rows * columns >= _TANH)
