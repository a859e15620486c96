"""Layers that somebody hooks into, parametrises or replaces are run as the modules they are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from coach.architectures.dense import Dense
from coach.architectures.heads.continuous_q import ContinuousQ
from coach.core import blas
from coach.core.spec import Spec
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)))


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "FASTER", True)


def one_by_one(dense: Dense, x: Tensor) -> Tensor:
    for linear in dense.linears:
        x = dense.activation(linear(x))
    return x


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Shifted(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


def replace_layer(dense: Dense) -> None:
    dense.linears[1] = Shifted(6, 5)


def replace_activation(dense: Dense) -> None:
    dense.activation = nn.Softplus()


def leave_out_bias(dense: Dense) -> None:
    dense.linears[0] = nn.Linear(3, 6, bias=False)


CHANGES: list[Any] = [
    lambda dense: dense.linears[0].register_forward_hook(lambda m, i, out: out + 0.5),
    lambda dense: dense.linears[1].register_forward_pre_hook(lambda m, i: (i[0] * 3,)),
    lambda dense: dense.activation.register_forward_hook(lambda m, i, out: out.square()),
    lambda dense: dense.linears[0].register_full_backward_hook(lambda m, i, o: (i[0] * 4,)),
    lambda dense: parametrize.register_parametrization(dense.linears[0], "weight", Doubled()),
    lambda dense: parametrizations.weight_norm(dense.linears[1]),
    lambda dense: prune.random_unstructured(dense.linears[0], "weight", 0.5),
    replace_layer,
    replace_activation,
    leave_out_bias,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_layers_count(change: Any) -> None:
    torch.manual_seed(3)
    dense, x = Dense(3, [6, 5], "tanh"), torch.randn(7, 3, requires_grad=True)
    change(dense)
    sources = [x, *dense.parameters()]
    for _ in range(2):  # before and after a step, which pruned weights must follow
        mine, wanted = dense(x), one_by_one(dense, x)
        torch.testing.assert_close(mine, wanted)
        found = torch.autograd.grad(mine.square().sum(), sources, retain_graph=True)
        expected = torch.autograd.grad(wanted.square().sum(), sources)
        torch.testing.assert_close(found, expected)
        with torch.no_grad():
            torch.testing.assert_close(dense(x), wanted)
            for parameter in dense.parameters():
                parameter.add_(0.1)


def test_hooks_on_critics_are_called() -> None:
    head = ContinuousQ(4, SPEC, [8, 8])
    seen: list[nn.Module] = []
    for layer in head.layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(module))
    head(torch.randn(5, 4))(torch.randn(5, 2))
    assert seen == list(head.layers)


def test_hooks_on_all_modules_are_called() -> None:
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: seen.append(type(module).__name__)
    )
    try:
        Dense(3, [4, 4])(torch.randn(2, 3))
    finally:
        handle.remove()
    assert seen == ["Linear", "ReLU", "Linear", "ReLU", "Dense"]


def test_layers_are_pickled_and_restored() -> None:
    dense, x = Dense(3, [6, 5], "tanh"), torch.randn(7, 3)
    assert torch.equal(pickle.loads(pickle.dumps(dense))(x), dense(x))
