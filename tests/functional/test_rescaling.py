"""The squashing of returns and its inverse: by hand, by bisection, and for any number."""

from __future__ import annotations

import math

import pytest
import torch
from coach.functional.rescaling import rescaled, restored
from hypothesis import given
from hypothesis import strategies as st

# Runs flush the smallest numbers to zero, see coach.runners.experiment.
RETURNS = st.floats(-1e6, 1e6, allow_subnormal=False)
EPSILONS = st.sampled_from([0.0, 1e-6, 1e-3, 1e-2, 0.5])


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("value", "epsilon", "wanted"),
    [
        (0.0, 0.1, 0.0),
        (3.0, 0.0, 1.0),  # sqrt(4) - 1
        (3.0, 0.1, 1.3),
        (-8.0, 0.0, -2.0),
        (-8.0, 0.5, -6.0),
        (99.0, 1e-3, 9.099),
    ],
)
def test_by_hand(value: float, epsilon: float, wanted: float) -> None:
    assert rescaled(double(value), epsilon).item() == pytest.approx(wanted)
    assert restored(double(wanted), epsilon).item() == pytest.approx(value)


def by_definition(value: float, epsilon: float) -> float:
    return math.copysign(math.sqrt(abs(value) + 1) - 1, value) + epsilon * value


def by_bisection(value: float, epsilon: float) -> float:
    """Where the definition takes a value, found without any formula for it."""
    low, high = -4e6, 4e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if by_definition(middle, epsilon) < value else (low, middle)
    return (low + high) / 2


@given(RETURNS, EPSILONS)
def test_it_is_what_it_is_defined_as(value: float, epsilon: float) -> None:
    found = rescaled(double(value), epsilon).item()
    assert found == pytest.approx(by_definition(value, epsilon), rel=1e-9, abs=1e-9)


@given(st.floats(-1e3, 1e3, allow_subnormal=False), EPSILONS)
def test_the_inverse_is_where_bisection_finds_it(value: float, epsilon: float) -> None:
    found = restored(double(value), epsilon).item()
    assert found == pytest.approx(by_bisection(value, epsilon), rel=1e-7, abs=1e-7)


@given(RETURNS, EPSILONS)
def test_one_undoes_the_other(value: float, epsilon: float) -> None:
    there = restored(rescaled(double(value), epsilon), epsilon)
    back = rescaled(restored(double(value / 1e3), epsilon), epsilon)
    assert there.item() == pytest.approx(value, rel=1e-12, abs=1e-300)
    assert back.item() == pytest.approx(value / 1e3, rel=1e-12, abs=1e-300)


@given(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), EPSILONS)
def test_single_precision_loses_its_last_digits_only(value: float, epsilon: float) -> None:
    """The formula as the paper prints it keeps three digits of a return of 1."""
    there = restored(rescaled(torch.tensor(value), epsilon), epsilon)
    assert there.dtype == torch.float32
    assert there.item() == pytest.approx(value, rel=2e-6, abs=1e-37)


@given(RETURNS, RETURNS, EPSILONS)
def test_order_and_sign_are_kept(one: float, two: float, epsilon: float) -> None:
    low, high = sorted((one, two))
    assert rescaled(double(low), epsilon) <= rescaled(double(high), epsilon)
    assert rescaled(double(-one), epsilon) == -rescaled(double(one), epsilon)
    assert restored(double(-one), epsilon) == -restored(double(one), epsilon)


def test_shapes_are_kept_and_gradients_flow() -> None:
    value = torch.linspace(-5, 5, 12).view(3, 4).requires_grad_()
    for function in (rescaled, restored):
        found = function(value, 1e-2)
        assert found.shape == (3, 4)
        (gradient,) = torch.autograd.grad(found.sum(), value)
        assert torch.isfinite(gradient).all()
        assert (gradient > 0).all()
