"""Layers of several independent networks in one product."""

from __future__ import annotations

import math
from typing import Any

import torch
from coach.architectures import onednn
from coach.architectures.linear import product
from coach.core import blas
from coach.core.eager import may_leave_torch
from torch import Tensor, nn


class EnsembleLinear(nn.Module):
    """``E`` independent linear layers as one batched product: ``[E, B, in]`` to ``[E, B, out]``."""

    def __init__(self, size: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # the bound of nn.Linear's own initialisation
        self.weight = nn.Parameter(torch.empty(size, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if not (
            may_leave_torch(inputs, weight, bias)
            and (blas.serves(inputs) or (onednn.FASTER and inputs.is_cpu))
        ):
            return torch.baddbmm(bias, inputs, weight)
        if torch.is_grad_enabled():
            outputs: Tensor = _Affine.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
            return outputs
        return product(inputs, weight).add_(bias)


class _Affine(torch.autograd.Function):
    """With products that are chosen one by one, those of the gradient as well."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight).add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs = product(gradient, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        of_bias = gradient.sum(1, keepdim=True)
        return of_inputs, product(inputs.transpose(1, 2), gradient), of_bias
