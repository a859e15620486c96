"""Products, and layers with their gradients, are the same whichever library makes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.architectures import onednn
from coach.architectures.dense import Dense, ensemble_of_stacks
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.linear import Linear, affine, product
from coach.core import blas
from coach.core.dispatch import Work


@pytest.fixture(params=["NumPy", "oneDNN", "oneDNN as chosen"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where it is faster: for all products, or those that are worth it."""
    by_numpy = request.param == "NumPy"
    if not (by_numpy or onednn.works()):
        pytest.skip("this torch is built without oneDNN")
    monkeypatch.setattr(blas, "FASTER", by_numpy)
    monkeypatch.setattr(onednn, "FASTER", not by_numpy)
    if request.param == "oneDNN":
        monkeypatch.setattr(onednn, "_PRODUCT", 1)
        monkeypatch.setattr(onednn, "_TANH", 1)


def close(mine: Any, wanted: Any) -> None:
    torch.testing.assert_close(mine, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 8, 64, 300])
@pytest.mark.parametrize("inputs", [1, 4, 256])
@pytest.mark.parametrize("columns", [1, 2, 23, 64])
@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("turned", ["neither", "left", "right", "shared"])
def test_products(rows: int, inputs: int, columns: int, members: int | None, turned: str) -> None:
    several = () if members is None else (members,)
    left, right = torch.randn(*several, rows, inputs), torch.randn(*several, inputs, columns)
    if turned == "left":
        left = torch.randn(*several, inputs, rows).transpose(-1, -2)
    if turned == "right":
        right = torch.randn(*several, columns, inputs).transpose(-1, -2)
    if turned == "shared":
        left = torch.randn(rows, inputs).expand(*several, rows, inputs)
    wanted = (left.double() @ right.double()).float()
    close(product(left, right), wanted)
    with Work():  # who watches sees operators in their place
        close(product(left, right), wanted)
    if members is None:
        close(product(left, right, like=torch.zeros(columns, rows).t()), wanted)


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(3, 5, 4), (64, 300, 256), (32, 256, 12), (1, 9, 12)]
)
@pytest.mark.parametrize("leaf", [True, False])
def test_linear_layers_and_their_gradients(
    rows: int, inputs: int, outputs: int, leaf: bool
) -> None:
    layer = Linear(inputs, outputs)
    x = torch.randn(rows, inputs, requires_grad=leaf)
    pull = torch.randn(rows, outputs)
    sources = [layer.weight, layer.bias, *([x] if leaf else [])]
    plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    close(layer(x), plain)
    close(
        torch.autograd.grad((layer(x) * pull).sum(), sources),
        torch.autograd.grad((plain * pull).sum(), sources),
    )
    with torch.no_grad():
        close(affine(x, layer.weight, layer.bias), plain)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("hidden", [[7, 5], [256, 256]])
def test_stacks_and_their_gradients(activation: Any, hidden: list[int]) -> None:
    dense = Dense(6, hidden, activation)
    other = Dense(6, hidden, activation).double()  # which torch makes
    other.load_state_dict(dense.state_dict())
    x = torch.randn(80, 6)
    pull = torch.randn(80, hidden[-1])
    mine, theirs = dense(x), other(x.double())
    close(mine, theirs.float())
    found = torch.autograd.grad((mine * pull).sum(), list(dense.parameters()))
    wanted = torch.autograd.grad((theirs * pull).sum(), list(other.parameters()))
    close(found, tuple(g.float() for g in wanted))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("wide", [5, 256])
def test_ensembles_of_stacks_and_their_gradients(activation: Any, wide: int) -> None:
    shapes = [(2, 6, wide), (2, 1, wide), (2, wide, wide), (2, 1, wide)]
    parameters = [torch.randn(shape, requires_grad=True) / shape[1] for shape in shapes]
    parameters = [p.detach().requires_grad_() for p in parameters]
    doubles = [p.detach().double().requires_grad_() for p in parameters]
    x = torch.randn(80, 6).expand(2, 80, 6)
    pull = torch.randn(2, 80, wide)
    mine = ensemble_of_stacks(x, activation, parameters)
    theirs = ensemble_of_stacks(x.double(), activation, doubles)
    close(mine, theirs.float())
    found = torch.autograd.grad((mine * pull).sum(), parameters)
    wanted = torch.autograd.grad((theirs * pull).sum(), doubles)
    close(found, tuple(g.float() for g in wanted))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 3), (4, 1), (256, 1), (256, 200)])
def test_layers_of_ensembles_and_their_gradients(inputs: int, outputs: int) -> None:
    layer = EnsembleLinear(3, inputs, outputs)
    x = torch.randn(3, 90, inputs, requires_grad=True)
    pull = torch.randn(3, 90, outputs)
    plain = torch.baddbmm(layer.bias, x, layer.weight)
    close(layer(x), plain)
    sources = [x, *layer.parameters()]
    close(
        torch.autograd.grad((layer(x) * pull).sum(), sources),
        torch.autograd.grad((plain * pull).sum(), sources),
    )
    with torch.no_grad():
        close(layer(x), plain)
