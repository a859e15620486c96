"""Products of matrices, and tanh, by NumPy, on the processors where torch's own are slow.

torch leaves both to oneMKL. On processors that are not Intel's that library does without AVX-512,
so that products take twice the time that NumPy's OpenBLAS needs, large ones and small ones, and
tanh takes twelve times as long. Which of them makes a product depends on the processor alone, and
on whether torch has one thread, never on a clock, so that the same work has the same bits.

Tapes and counters see the operators ``coach::product`` and ``coach::tanh_``; without such a watcher
NumPy is called at once, which is what recordings do as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from coach.core import openblas
from coach.core.dispatch import watched
from coach.core.openblas import Array
from coach.core.processor import onemkl_falls_behind
from torch import Tensor

#: Makes several products at once, if NumPy's library can.
BATCH = openblas.find_batch()
_threads = 1
#: Whether this is a processor on which it is worth while, and NumPy's library makes use of it.
FASTER = openblas.is_wide() and onemkl_falls_behind()


def serves(tensor: Tensor) -> bool:
    """Whether products that begin with ``tensor`` are made here.

    Whoever asks has found out that it may leave torch (`coach.core.eager`).

    Several threads of torch's wait for each other busily, and so would OpenBLAS's beside them, on
    the same CPUs. So it is one or the other; see `coach.core.threads`.
    """
    return (
        FASTER and tensor.is_cpu and tensor.dtype == torch.float32 and torch.get_num_threads() == 1
    )


def product(left: Tensor, right: Tensor, turned: bool = False) -> Tensor:
    """``left @ right`` for ``[B, in]`` and ``[in, out]``, or for ``E`` pairs.

    Autograd knows nothing of it. Tensors are of 32-bit numbers, on CPU; both may be transposed.

    Args:
        left: what is multiplied.
        right: by this.
        turned: whether the result, of a single pair, is to lie in memory column by column.
    """
    if left.shape[-1] == 1:  # for this OpenBLAS is slow
        if turned:
            return (right.detach().t() * left.detach().t()).t()
        return left.detach() * right.detach()
    if watched():
        made: Tensor = torch.ops.coach.product(left.detach(), right.detach(), turned)
        return made
    return _product(left.detach(), right.detach(), turned)


def tanh_(of: Tensor) -> Tensor:
    """The hyperbolic tangent, in place; autograd knows nothing of it."""
    return torch.ops.coach.tanh_(of) if watched() else _tanh_(of)


def use_threads(count: int) -> None:
    """Have products be made by so many threads from now on."""
    global _threads
    _threads = count
    openblas.use_threads(count)


def by_arrays(
    operator: Any, args: Sequence[Any], outputs: Sequence[Tensor]
) -> Callable[[], Any] | None:
    """The same call of an operator again, straight to NumPy; None for operators of torch's."""
    make = _AGAIN.get(operator)
    return None if make is None else make(*args, *outputs)


def _product(left: Tensor, right: Tensor, turned: bool = False) -> Tensor:
    if turned:
        out = left.new_empty(right.shape[-1], left.shape[0]).t()
    else:
        out = left.new_empty(*left.shape[:-1], right.shape[-1])
    _making(left.numpy(), right.numpy(), out.numpy())()
    return out


def _making(left: Array, right: Array, out: Array) -> Callable[[], Any]:
    """Writes ``left @ right`` to ``out``, with as many threads as there are when it is called."""
    alone = partial(np.matmul, left, right, out)
    if BATCH is None or out.size * left.shape[-1] <= BATCH.LEAST:
        return alone
    batch = BATCH
    ways: dict[int, Callable[[], Any]] = {1: alone}

    def make() -> None:
        if _threads not in ways:
            ways[_threads] = batch(left, right, out, _threads) or alone
        ways[_threads]()

    return make


def _tanh_(of: Tensor) -> Tensor:
    array = of.numpy()
    np.tanh(array, array)
    return of


def _product_again(left: Tensor, right: Tensor, *turned_and_out: Any) -> Callable[[], Any]:
    return _making(left.numpy(), right.numpy(), turned_and_out[-1].numpy())


def _tanh_again(of: Tensor, out: Tensor) -> Callable[[], Any]:
    return partial(np.tanh, of.numpy(), out.numpy())


_LIBRARY: Any = torch.library.Library("coach", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("product(Tensor left, Tensor right, bool turned=False) -> Tensor")
_LIBRARY.define("tanh_(Tensor(a!) of) -> Tensor(a!)")
_LIBRARY.impl("product", _product, "CPU")
_LIBRARY.impl("tanh_", _tanh_, "CPU")
_AGAIN: dict[Any, Callable[..., Callable[[], Any]]] = {
    torch.ops.coach.product.default: _product_again,
    torch.ops.coach.tanh_.default: _tanh_again,
}

if FASTER:
    use_threads(1)
