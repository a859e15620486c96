"""Linear layers, with their product in the order in which processors make it fastest.

Of 16 to 64 wide rows ``[B, in]`` with weights ``[out, in]``, ``weight @ rows.T`` takes down to 0.4
of the time of ``rows @ weight.T`` (oneMKL; 0.7 behind the convolutions of a Nature CNN, in
minibatches of 32), and so it does of many rows with few outputs, as heads have them (0.6 from 64
rows of 256 to 2). Elsewhere it takes as long or longer. Of a single row, as one environment gives,
it is a product with a vector, for which there is less to prepare. On some processors NumPy makes
all of them (`coach.core.blas`), or oneDNN the large ones (`onednn`).
"""

from __future__ import annotations

from typing import Any

import torch
from coach.architectures import onednn
from coach.core import blas
from coach.core.eager import may_leave_torch
from torch import Tensor, nn
from torch.nn import functional

#: Numbers of rows, and of inputs from which on, the other order is faster.
_FEWEST, _MOST, _WIDE = 16, 64, 512
#: Outputs of heads for which it is faster, if the input has so many numbers in so many rows.
_NARROW, _ROWS, _NUMBERS = range(2, 9), 32, 32 * 256
#: Columns of a product that oneMKL makes faster in the other order on processors not Intel's, and
#: numbers of one network from which on each product of an ensemble is better made by itself there.
_FEW, _MEMBER = range(2, 33), 2**14


class Linear(nn.Linear):
    """`torch.nn.Linear`, faster on CPU for small batches of wide inputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        return affine(inputs, self.weight, self.bias)


def affine(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``inputs @ weight.T + bias`` for ``[..., in]``, ``[out, in]`` and ``[out]``."""
    if (
        inputs.dim() != 2
        or bias is None
        or not inputs.is_cpu
        or not may_leave_torch(inputs, weight, bias)
    ):
        return functional.linear(inputs, weight, bias)
    rows, learning = len(inputs), torch.is_grad_enabled()
    if rows == 1 and not learning:
        return torch.addmv(bias, weight, inputs[0]).unsqueeze(0)
    by_others = blas.serves(inputs) or onednn.pays(inputs, len(weight))
    if not (by_others or _turns(rows, *weight.shape)):
        return functional.linear(inputs, weight, bias)
    if learning:
        outputs: Tensor = _Affine.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
        return outputs
    return _made(inputs, weight, bias)


def product(left: Tensor, right: Tensor, like: Tensor | None = None) -> Tensor:
    """``left @ right`` for ``[B, in]`` and ``[in, out]``, or for ``E`` pairs.

    torch makes it where autograd has to differentiate it.

    Args:
        left: what is multiplied.
        right: by this.
        like: a tensor of the result's shape that it will be combined with.
    """
    differentiated = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
    if differentiated or not may_leave_torch(left, right):
        return left @ right
    if blas.serves(left):
        return blas.product(left, right, turned=like is not None and _is_turned(like))
    if not (onednn.FASTER and left.is_cpu and left.dtype == torch.float32):
        return left @ right
    if left.dim() == 2:
        return _product(left, right)
    if left.shape[2] == 1:
        return left * right
    if left.shape[1] * left.shape[2] < _MEMBER:
        return left @ right
    return torch.stack([_product(a, b) for a, b in zip(left, right)])


def _product(left: Tensor, right: Tensor) -> Tensor:
    columns = right.shape[1]
    if onednn.pays(left, columns):
        return onednn.linear(left, right.t())
    if columns == 1:
        return (left @ right[:, 0]).unsqueeze(1)
    if columns in _FEW and len(left) >= 2 * columns:
        made = right.t() @ left.t()
        return made.new_empty(len(left), columns).copy_(made.t())
    return left @ right


def _is_turned(tensor: Tensor) -> bool:
    """Whether it lies in memory column by column."""
    return tensor.dim() == 2 and tensor.stride(0) == 1 and len(tensor) > 1


def _turns(rows: int, outputs: int, inputs: int) -> bool:
    narrow = _FEW if onednn.FASTER else _NARROW
    if outputs in narrow and rows >= _ROWS and rows * inputs >= _NUMBERS:
        return True
    return _FEWEST <= rows <= _MOST and inputs >= _WIDE


def _made(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if blas.serves(inputs):
        return blas.product(inputs, weight.t()).add_(bias)
    if onednn.pays(inputs, len(weight)):
        return onednn.linear(inputs, weight, bias)
    return _turned(inputs, weight, bias)


def _turned(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    outputs = torch.addmm(bias.unsqueeze(1), weight, inputs.t())  # [out, B]
    return inputs.new_empty(len(inputs), len(weight)).copy_(outputs.t())  # never a view


class _Affine(torch.autograd.Function):
    """Its gradient is made of products in the usual order, unlike the one autograd would find.

    Where the gradient is differentiated in its turn, torch makes these products (`product`).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _made(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs = product(gradient, weight, inputs) if ctx.needs_input_grad[0] else None
        return of_inputs, product(gradient.t(), inputs), gradient.sum(0)
