"""Dense layers with their activations as one node of the autograd graph.

For small networks most of an update is not arithmetic but the bookkeeping around each of its many
operations. A stack of linear layers with ReLU or tanh between them has a gradient of a few
products, so it is written out here once, and checked against autograd by the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from coach.architectures import onednn
from coach.architectures.activations import Activation, Initializer, activation_layer, initialized
from coach.architectures.linear import Linear, affine, product
from coach.architectures.noisy import NoisyLinear
from coach.core import blas
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_BY_HAND = ("relu", "tanh")
#: Numbers of a weight from which on, and rows up to which, NumPy's products are up to a third
#: faster if what the layers give lies in memory column by column, as the weights ask for. For more
#: rows the gradient loses what is gained.
_WIDE, _FEW = 2**15, 128


class Dense(nn.Module):
    """Linear layers with an activation behind each: ``[..., inputs]`` to ``[..., hidden[-1]]``.

    Args:
        inputs: width that comes in.
        hidden: widths of the layers; an empty list hands the input on.
        activation: behind each layer.
        init: "default" is torch's own, "orthogonal" what PPO implementations use.
        layer_norm: normalise before each activation (arXiv:1607.06450).
        noisy: weights with noise that is learned (arXiv:1706.10295); ``init`` is then its own.
    """

    def __init__(
        self,
        inputs: int,
        hidden: list[int],
        activation: Activation = "relu",
        init: Initializer = "default",
        layer_norm: bool = False,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        self.linears = nn.ModuleList(
            NoisyLinear(a, b) if noisy else initialized(Linear(a, b), init)
            for a, b in zip(widths, hidden)
        )
        self.noisy = noisy
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden if layer_norm)
        self.name, self.activation = activation, activation_layer(activation)
        self.width = widths[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        parameters: list[Any] = [p for li in self.linears for p in (li.weight, li.bias)]
        if not parameters:
            return inputs
        if self.norms or self.noisy or self.name not in _BY_HAND or inputs.dim() != 2:
            return self._plain(inputs)
        return _stack(inputs, self.name, parameters)

    def _plain(self, outputs: Tensor) -> Tensor:
        for number, linear in enumerate(self.linears):
            outputs = linear(outputs)
            if self.norms:
                outputs = self.norms[number](outputs)
            outputs = self.activation(outputs)
        return outputs


def by_hand(activation: str) -> bool:
    """Whether the gradient of stacks with this activation is written out here."""
    return activation in _BY_HAND


def ensemble_of_stacks(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> Tensor:
    """Layers of ``E`` networks at once, ``[E, B, inputs]`` to ``[E, B, outputs]``.

    Args:
        inputs: of all networks.
        activation: behind each layer; see `by_hand`.
        parameters: weight ``[E, in, out]`` and bias ``[E, 1, out]`` of each layer.
    """
    return _stack(inputs, activation, parameters)


def _stack(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> Tensor:
    if torch.is_grad_enabled():
        outputs: Tensor = _Stack.apply(inputs, activation, *parameters)  # type: ignore[no-untyped-call]
        return outputs
    return _run(inputs, activation, parameters)[-1]


def _run(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The input and every layer's output."""
    outputs = [inputs]
    widest = max(weight.numel() for weight in parameters[::2])
    turned = inputs.dim() == 2 and 1 < len(inputs) <= _FEW and widest >= _WIDE
    for weight, bias in zip(parameters[::2], parameters[1::2]):
        outputs.append(_layer(outputs[-1], weight, bias, activation, turned))
    return outputs


def _layer(inputs: Tensor, weight: Tensor, bias: Tensor, activation: Any, turned: bool) -> Tensor:
    single = inputs.dim() == 2
    if blas.serves(inputs):
        outputs = blas.product(inputs, weight.t() if single else weight, turned).add_(bias)
        return torch.relu_(outputs) if activation == "relu" else blas.tanh_(outputs)
    if onednn.pays(inputs, bias.shape[-1], activation):
        if single:
            return onednn.linear(inputs, weight, bias, activation)
        members = zip(inputs, weight, bias)
        return torch.stack([onednn.linear(i, w.t(), b[0], activation) for i, w, b in members])
    outputs = affine(inputs, weight, bias) if single else torch.baddbmm(bias, inputs, weight)
    return torch.relu_(outputs) if activation == "relu" else torch.tanh_(outputs)


class _Stack(torch.autograd.Function):
    """One stack ``[B, in]``, whose weights are ``[out, in]``, or an ensemble ``[E, B, in]``."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        outputs = _run(inputs, activation, parameters)
        ctx.activation = activation
        ctx.save_for_backward(*outputs, *parameters[::2])
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        depth = len(saved) // 2
        outputs, weights = saved[: depth + 1], saved[depth + 1 :]
        single = gradient.dim() == 2
        gradients: list[Tensor | None] = []
        for layer in range(depth - 1, -1, -1):
            output, before = outputs[layer + 1], outputs[layer]
            if ctx.activation == "relu":
                gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
            else:
                gradient = torch.ops.aten.tanh_backward(gradient, output)
            if single:
                gradients += [gradient.sum(0), product(gradient.t(), before)]
            else:
                summed = gradient.sum(1, keepdim=True)
                gradients += [summed, product(before.transpose(1, 2), gradient)]
            if layer or ctx.needs_input_grad[0]:
                weight = weights[layer]
                other = weight if single else weight.transpose(1, 2)
                gradient = product(gradient, other, like=before)
        return (gradient if ctx.needs_input_grad[0] else None, None, *reversed(gradients))
