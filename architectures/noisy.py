"""Layers whose weights are noisy, so that the network itself explores."""

from __future__ import annotations

import math

import torch
from coach.architectures.linear import Linear, affine
from coach.core.stream import current_stream
from torch import Tensor, nn
from torch.nn import functional

#: Standard deviation of fresh noise, times the root of the layer's inputs (arXiv:1706.10295, 3.2).
SIGMA_0 = 0.5
# Rows up to which two products are cheaper than one with the noisy weights, which take making.
_FEW = 8


class NoisyLinear(nn.Module):
    """``(mu_w + sigma_w * e_w) x + mu_b + sigma_b * e_b``, factorised noise (arXiv:1706.10295).

    Every call draws one sample of noise for all rows, from `coach.core.stream`; where there is no
    stream, as while evaluating, the means alone are used.

    Args:
        inputs: width that comes in.
        outputs: width that goes out.
    """

    random = True

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), SIGMA_0 * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), SIGMA_0 * bound))

    def forward(self, inputs: Tensor) -> Tensor:
        stream = current_stream()
        if stream is None:
            return affine(inputs, self.weight, self.bias)
        outputs, width = self.weight.shape
        before, behind = self._noise(width, stream), self._noise(outputs, stream)
        bias = torch.addcmul(self.bias, self.bias_sigma, behind)
        if inputs.dim() == 2 and len(inputs) <= _FEW and not torch.is_grad_enabled():
            noise = functional.linear(inputs * before, self.weight_sigma)
            return functional.linear(inputs, self.weight, bias).addcmul_(noise, behind)
        weight = torch.addcmul(self.weight, self.weight_sigma, torch.outer(behind, before))
        return affine(inputs, weight, bias)

    def _noise(self, size: int, stream: torch.Generator) -> Tensor:
        """``sgn(x) sqrt(|x|)`` of standard normal numbers (eq. 10, 11)."""
        drawn = torch.randn(size, generator=stream, device=self.weight.device)
        return drawn.sign() * drawn.abs().sqrt()


def linear(inputs: int, outputs: int, noisy: bool = False) -> nn.Module:
    """A linear layer, noisy or not."""
    return NoisyLinear(inputs, outputs) if noisy else Linear(inputs, outputs)


def draws(module: nn.Module) -> bool:
    """Whether a network draws random numbers when it runs."""
    return any(getattr(inner, "random", False) for inner in module.modules())
