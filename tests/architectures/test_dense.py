"""The hand-written gradient of dense stacks against autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.architectures.dense import Dense, ensemble_of_stacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def reference(dense: Dense) -> nn.Sequential:
    act: Any = type(dense.activation)
    return nn.Sequential(*(layer for linear in dense.linears for layer in (linear, act())))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["relu", "tanh"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 7),
    st.integers(0, 1000),
)
def test_outputs_and_gradients_equal_autograd(
    activation: Any, hidden: list[int], rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    dense = Dense(5, hidden, activation).double()
    inputs = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    wanted = reference(dense)(inputs)
    got = dense(inputs)
    torch.testing.assert_close(got, wanted)
    toward = torch.randn_like(wanted)
    sources = [inputs, *dense.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad((got * toward).sum(), sources),
        torch.autograd.grad((wanted * toward).sum(), sources),
    ):
        torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(dense(inputs), wanted)


def test_the_input_gradient_is_left_out_where_nobody_asks() -> None:
    dense = Dense(3, [4], "relu")
    (gradient,) = torch.autograd.grad(dense(torch.randn(2, 3)).sum(), [dense.linears[0].weight])
    assert gradient.shape == (4, 3)


def test_its_input_is_not_changed() -> None:
    inputs = torch.full((2, 3), -1.0)
    Dense(3, [3, 3], "relu")(inputs)
    assert (inputs == -1).all()


@pytest.mark.parametrize("options", [{"activation": "gelu"}, {"layer_norm": True}])
def test_other_forms_go_through_autograd(options: dict[str, Any]) -> None:
    dense = Dense(3, [4, 5], **options)
    out = dense(torch.randn(2, 3))
    assert out.shape == (2, 5)
    out.sum().backward()
    assert all(p.grad is not None for p in dense.parameters())


def test_no_layers_hand_the_input_on() -> None:
    inputs = torch.randn(2, 3)
    assert Dense(3, [])(inputs) is inputs


def test_orthogonal_weights() -> None:
    weight = Dense(8, [8], init="orthogonal").linears[0].weight
    torch.testing.assert_close(weight @ weight.t(), 2 * torch.eye(8), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(["relu", "tanh"]),
    st.integers(1, 3),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(0, 1000),
)
def test_an_ensemble_equals_its_members(
    activation: Any, size: int, hidden: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    widths = [4, *hidden]
    parameters: list[torch.Tensor] = []
    for before, after in zip(widths, hidden):
        parameters += [torch.randn(size, before, after), torch.randn(size, 1, after)]
    parameters = [p.double().requires_grad_() for p in parameters]
    inputs = torch.randn(size, 5, 4, dtype=torch.float64, requires_grad=True)
    act: Any = {"relu": torch.relu, "tanh": torch.tanh}[activation]
    members = []
    for member in range(size):
        x = inputs[member]
        for weight, bias in zip(parameters[::2], parameters[1::2]):
            x = act(x @ weight[member] + bias[member])
        members.append(x)
    wanted, got = torch.stack(members), ensemble_of_stacks(inputs, activation, parameters)
    torch.testing.assert_close(got, wanted)
    toward = torch.randn_like(wanted)
    for mine, theirs in zip(
        torch.autograd.grad((got * toward).sum(), [inputs, *parameters]),
        torch.autograd.grad((wanted * toward).sum(), [inputs, *parameters]),
    ):
        torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(ensemble_of_stacks(inputs, activation, parameters), wanted)
