"""Dense layers with their activations as one node of the autograd graph.

For small networks most of an update is not arithmetic but the bookkeeping around each of its many
operations. A stack of linear layers with ReLU or tanh between them has a gradient of a few
products, so it is written out here once, and checked against autograd by the tests.

The layers run one after the other, as modules, where they have hooks, parametrisations or a class
of their own. torch's operators run them while torch traces, compiles or transforms what it runs
(`coach.core.eager`), and while a gradient is itself differentiated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from coach.architectures import onednn
from coach.architectures.activations import Activation, Initializer, activation_layer, initialized
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.linear import Linear, affine, product
from coach.architectures.noisy import NoisyLinear
from coach.core import blas
from coach.core.eager import may_leave_torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook

_BY_HAND: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh"}
_LINEARS = (Linear, nn.Linear, EnsembleLinear)
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
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden if layer_norm)
        self.activation = activation_layer(activation)
        self.width = widths[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        if self.norms or inputs.dim() != 2:
            return self._one_by_one(inputs)
        stack = as_stack([*self.linears, self.activation])
        return self._one_by_one(inputs) if stack is None else _stack(inputs, *stack)

    def _one_by_one(self, outputs: Tensor) -> Tensor:
        for number, linear in enumerate(self.linears):
            outputs = linear(outputs)
            if self.norms:
                outputs = self.norms[number](outputs)
            outputs = self.activation(outputs)
        return outputs


def as_stack(layers: Iterable[nn.Module]) -> tuple[str, list[Tensor]] | None:
    """Linear layers and their activations as one function: its activation and its parameters.

    None if they must run one after the other: layers of another kind, different activations, hooks,
    or a compiler that reads them.

    Args:
        layers: all of them; an activation may come once or behind each linear layer.
    """
    if torch.compiler.is_compiling() or _has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    parameters: list[Tensor] = []
    activations = set()
    for layer in layers:
        if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
            return None
        if layer._backward_hooks or layer._backward_pre_hooks:
            return None
        if type(layer) in _LINEARS:
            parameters += [layer.weight, layer.bias]  # type: ignore[list-item]
        else:
            activations.add(_BY_HAND.get(type(layer)))
    if len(activations) != 1 or not parameters or any(p is None for p in parameters):
        return None
    (activation,) = activations
    return None if activation is None else (activation, parameters)


def ensemble_of_stacks(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> Tensor:
    """Layers of ``E`` networks at once, ``[E, B, inputs]`` to ``[E, B, outputs]``.

    Args:
        inputs: of all networks.
        activation: behind each layer, "relu" or "tanh".
        parameters: weight ``[E, in, out]`` and bias ``[E, 1, out]`` of each layer.
    """
    return _stack(inputs, activation, parameters)


def _stack(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> Tensor:
    if not may_leave_torch(inputs, *parameters):
        return _by_torch(inputs, activation, parameters)[-1]
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


def _by_torch(inputs: Tensor, activation: str, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The same by operators that autograd and everybody else knows."""
    outputs = [inputs]
    for weight, bias in zip(parameters[::2], parameters[1::2]):
        before = outputs[-1]
        if before.dim() == 2:
            after = functional.linear(before, weight, bias)
        else:
            after = torch.baddbmm(bias, before, weight)
        outputs.append(torch.relu(after) if activation == "relu" else torch.tanh(after))
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
        ctx.save_for_backward(*outputs, *parameters)
        return outputs[-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        depth = len(saved) // 3
        outputs, parameters = saved[: depth + 1], saved[depth + 1 :]
        if torch.is_grad_enabled():  # to be differentiated again: how outputs came to be matters
            outputs = _by_torch(outputs[0], ctx.activation, parameters)
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
                weight = parameters[2 * layer]
                other = weight if single else weight.transpose(1, 2)
                gradient = product(gradient, other, like=before)
        return (gradient if ctx.needs_input_grad[0] else None, None, *reversed(gradients))
