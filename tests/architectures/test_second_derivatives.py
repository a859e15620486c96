"""Layers and losses with gradients of their own can be differentiated twice, and transformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from coach.architectures import onednn
from coach.architectures.dense import Dense, ensemble_of_stacks
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.linear import Linear
from coach.core import blas
from coach.functional.policy_losses import clipped_surrogate
from coach.functional.targets import half_squared, huber
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def of_parameters(module: nn.Module) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The module as a function of an input and its parameters, and these."""
    named = dict(module.named_parameters())

    def function(inputs: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(named, parameters)), (inputs,))  # type: ignore[no-any-return]

    return function, list(named.values())


def check(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    gradcheck(function, inputs)
    gradgradcheck(function, inputs)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize(("rows", "hidden"), [(1, [3]), (4, [3, 2]), (2, [2, 3, 2])])
def test_dense_layers(activation: Any, rows: int, hidden: list[int]) -> None:
    torch.manual_seed(5)
    function, parameters = of_parameters(Dense(3, hidden, activation).double())
    check(function, doubles(rows, 3), *parameters)
    check(lambda x, *p: function(x.t(), *p), doubles(3, rows), *parameters)  # column by column


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 4, 3), (40, 2, 2), (17, 3, 1)])
def test_linear_layers(bias: bool, rows: int, inputs: int, outputs: int) -> None:
    function, parameters = of_parameters(Linear(inputs, outputs, bias=bias).double())
    check(function, doubles(rows, inputs), *parameters)


def test_linear_layers_whose_product_is_made_the_other_way_round() -> None:
    torch.manual_seed(2)
    layer, x = Linear(520, 2).double(), doubles(16, 520)
    (slope,) = torch.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
    found = torch.autograd.grad(slope.square().sum(), [x, layer.weight, layer.bias])
    y = x.detach().requires_grad_()
    plain = nn.functional.linear(y, layer.weight, layer.bias)
    (slope,) = torch.autograd.grad(plain.tanh().sum(), y, create_graph=True)
    wanted = torch.autograd.grad(slope.square().sum(), [y, layer.weight, layer.bias])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_ensembles(activation: str) -> None:
    torch.manual_seed(8)
    parameters = [doubles(2, 3, 4), doubles(2, 1, 4), doubles(2, 4, 2), doubles(2, 1, 2)]
    check(lambda x, *p: ensemble_of_stacks(x, activation, p), doubles(2, 3, 3), *parameters)
    function, parameters = of_parameters(EnsembleLinear(2, 3, 4).double())
    check(function, doubles(2, 5, 3), *parameters)
    check(lambda x, *p: function(x.expand(2, 5, 3), *p), doubles(5, 3), *parameters)


def test_a_weight_that_depends_on_the_input_counts_once() -> None:
    layer = Dense(2, [2], "tanh").double()

    def function(x: Tensor) -> Tensor:
        weights = {"linears.0.weight": x.t() @ x, "linears.0.bias": x.sum(0)}
        return functional_call(layer, weights, (x,))  # type: ignore[no-any-return]

    check(function, doubles(3, 2))


@pytest.mark.parametrize("library", ["NumPy", "oneDNN"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("kind", ["stack", "linear", "ensemble", "ensemble of stacks"])
def test_other_libraries_have_the_same_second_derivatives(
    library: str, activation: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "FASTER", library == "NumPy")
    monkeypatch.setattr(onednn, "FASTER", library == "oneDNN" and onednn.works())
    monkeypatch.setattr(onednn, "_PRODUCT", 1)
    monkeypatch.setattr(onednn, "_TANH", 1)
    torch.manual_seed(4)
    act = torch.relu if activation == "relu" else torch.tanh
    single = kind in ("stack", "linear")
    sizes = [(9, 6), (9,), (5, 9), (5,)] if single else [(2, 6, 9), (2, 1, 9), (2, 9, 5), (2, 1, 5)]
    parameters = [torch.randn(size, requires_grad=True) for size in sizes]
    x = torch.randn(20, 6) if single else torch.randn(2, 20, 6)

    def plain(x: Tensor, parameters: list[Tensor]) -> Tensor:
        for weight, bias in zip(parameters[::2], parameters[1::2]):
            x = act(x @ (weight.t() if single else weight) + bias)
        return x

    def ours(x: Tensor, parameters: list[Tensor]) -> Tensor:
        if kind == "stack":
            module: nn.Module = Dense(6, [9, 5], activation)  # type: ignore[arg-type]
            names = dict(module.named_parameters())
            return functional_call(module, dict(zip(names, parameters)), (x,))  # type: ignore[no-any-return]
        if kind == "ensemble of stacks":
            return ensemble_of_stacks(x, activation, parameters)
        for pair in zip(parameters[::2], parameters[1::2]):
            layer = Linear(6, 9) if single else EnsembleLinear(2, 6, 9)
            x = act(functional_call(layer, dict(zip(("weight", "bias"), pair)), (x,)))
        return x

    def penalised(function: Any, x: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
        x = x.requires_grad_()
        (slope,) = torch.autograd.grad(function(x, parameters).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *parameters], allow_unused=True)

    wide = [p.detach().double().requires_grad_() for p in parameters]
    wanted = penalised(plain, x.detach().double(), wide)
    for mine, theirs in zip(penalised(ours, x, parameters), wanted):
        theirs = torch.zeros_like(mine) if theirs is None else theirs.float()
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "huber": lambda error: huber(error, 0.8),
    "half_squared": half_squared,
    "surrogate": lambda ratio: clipped_surrogate(ratio.exp(), ratio.cos(), 0.2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    torch.manual_seed(7)
    check(LOSSES[name], doubles(9))


def test_the_surrogate_is_differentiated_by_the_advantage_too() -> None:
    torch.manual_seed(7)
    check(lambda ratio, advantage: clipped_surrogate(ratio, advantage, 0.3), doubles(8), doubles(8))


@pytest.mark.parametrize("at", [0.0, 0.5, -0.5, 1.0, 3.0, -2.0])
def test_curvature_of_the_losses(at: float) -> None:
    error = torch.tensor([at], requires_grad=True)
    for loss, curvature in ((huber(error), float(abs(at) <= 1)), (half_squared(error), 1.0)):
        (slope,) = torch.autograd.grad(loss.sum(), error, create_graph=True)
        assert float(torch.autograd.grad(slope.sum(), error)[0]) == curvature
    transformed = hessian(lambda e: huber(e).sum())(error.detach())
    assert float(transformed) == float(abs(at) <= 1)


@pytest.mark.parametrize("library", ["torch", "NumPy", "oneDNN"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_transforms_of_torch_func(
    library: str, activation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "FASTER", library == "NumPy")
    monkeypatch.setattr(onednn, "FASTER", library == "oneDNN" and onednn.works())
    torch.manual_seed(6)
    dense = Dense(4, [6, 5], activation)
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
    plain = nn.Sequential(nn.Linear(4, 6), act(), nn.Linear(6, 5), act())
    plain.load_state_dict(dict(zip(plain.state_dict(), dense.state_dict().values())))
    x = torch.randn(7, 4)

    def results(module: nn.Module) -> list[Any]:
        parameters = [p.detach() for p in module.parameters()]
        names = [name for name, _ in module.named_parameters()]

        def loss(parameters: list[Tensor], x: Tensor) -> Tensor:
            made: Tensor = functional_call(module, dict(zip(names, parameters)), (x,))
            return huber(made.sin(), 0.4).sum()

        with forward_ad.dual_level():
            dual = loss(parameters, forward_ad.make_dual(x, x.cos()))  # type: ignore[no-untyped-call]
            along = forward_ad.unpack_dual(dual).tangent  # type: ignore[no-untyped-call]
        ones = x.unsqueeze(1)
        return [
            grad(loss)(parameters, x),
            vmap(grad(loss), in_dims=(None, 0))(parameters, ones),
            jacrev(loss, 1)(parameters, x),
            jacfwd(loss, 1)(parameters, x),
            hessian(loss, 1)(parameters, x),
            jvp(lambda x: loss(parameters, x), (x,), (x.cos(),)),
            along,
        ]

    torch.testing.assert_close(results(dense), results(plain), rtol=1e-4, atol=1e-4)
