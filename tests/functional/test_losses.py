"""Targets, surrogates and replay priorities against hand-computed numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from coach.functional.policy_losses import approximate_kl, clipped_surrogate
from coach.functional.priorities import importance_weights, priority_mass
from coach.functional.targets import half_squared, huber, soft_value, td_target
from coach.functional.values import ScalarValues
from torch.nn import functional


def test_td_target_by_hand() -> None:
    target = td_target(torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.0]), torch.tensor([10.0, 10]))
    assert target.tolist() == [10.0, 1.0]


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_huber_equals_torch(delta: float) -> None:
    error = torch.linspace(-5, 5, 101)
    wanted = functional.huber_loss(error, torch.zeros(101), reduction="none", delta=delta)
    torch.testing.assert_close(huber(error, delta), wanted)


def gradients(loss: torch.Tensor, along: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad((loss * along).sum(), source)
    return gradient


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_the_written_out_gradient_of_huber(delta: float) -> None:
    error = torch.linspace(-5, 5, 101, requires_grad=True)
    along = torch.rand(101)
    plain = functional.huber_loss(error, torch.zeros(101), reduction="none", delta=delta)
    torch.testing.assert_close(
        gradients(huber(error, delta), along, error), gradients(plain, along, error)
    )


def test_half_squared_and_its_gradient() -> None:
    error = torch.tensor([3.0, -1.0], requires_grad=True)
    loss = half_squared(error)
    assert loss.tolist() == [4.5, 0.5]
    assert gradients(loss, torch.tensor([1.0, 2.0]), error).tolist() == [3, -2]


def test_the_written_out_gradient_of_the_clipped_surrogate() -> None:
    torch.manual_seed(0)
    ratio = (torch.rand(200) * 2).requires_grad_()
    advantage, along = torch.randn(200), torch.rand(200)
    plain = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    loss = clipped_surrogate(ratio, advantage, 0.2)
    assert torch.equal(loss, plain)
    torch.testing.assert_close(
        gradients(loss, along, ratio), gradients(plain, along, ratio), rtol=1e-6, atol=0
    )


def test_huber_by_hand() -> None:
    assert huber(torch.tensor([0.5, -3.0])).tolist() == [0.125, 2.5]


def test_soft_value_by_hand() -> None:
    value = soft_value(torch.tensor([2.0]), torch.tensor([-1.5]), torch.tensor(0.2))
    assert value.item() == pytest.approx(2.3)


def test_double_q_values_the_chosen_action_by_the_target() -> None:
    now = ScalarValues(torch.tensor([[1.0, 5.0]], requires_grad=True), huber_delta=0)
    later = ScalarValues(torch.tensor([[7.0, 3.0]]))
    loss, surprise = now.td_loss(
        torch.tensor([0]), torch.tensor([1.0]), torch.tensor([0.5]), later, torch.tensor([1])
    )
    # target 1 + 0.5 * 3 = 2.5, error 1 - 2.5
    assert loss.item() == pytest.approx(0.5 * 1.5**2)
    assert surprise.item() == pytest.approx(1.5)
    assert not surprise.requires_grad
    (gradient,) = torch.autograd.grad(loss.sum(), now.mean)
    assert gradient.tolist() == [[-1.5, 0.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "wanted"),
    [(1.5, 1.0, -1.2), (0.5, 1.0, -0.5), (1.5, -1.0, 1.5), (0.5, -1.0, 0.8), (1.1, 2.0, -2.2)],
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, wanted: float) -> None:
    got = clipped_surrogate(torch.tensor(ratio), torch.tensor(advantage), 0.2)
    assert got.item() == pytest.approx(wanted)


def test_approximate_kl_estimates_the_kl_divergence() -> None:
    old, new = torch.tensor([0.5, 0.5]), torch.tensor([0.6, 0.4])
    drawn = torch.distributions.Categorical(old).sample((200_000,))
    estimate = approximate_kl((new / old).log()[drawn])
    exact = (old * (old / new).log()).sum()
    assert estimate.item() == pytest.approx(exact.item(), rel=0.1)
    assert approximate_kl(torch.zeros(3)).item() == 0


def test_priority_mass_by_hand() -> None:
    mass = priority_mass(np.array([0.0, 3.0, -3.0]), alpha=0.5, epsilon=1.0)
    assert mass.tolist() == [1.0, 2.0, 2.0]


def test_importance_weights_by_hand() -> None:
    # N = 4, beta = 1: 1 / (4 * .5) = .5 and 1 / (4 * .125) = 2, divided by the larger.
    weight = importance_weights(np.array([0.5, 0.125]), size=4, beta=1.0)
    assert weight.tolist() == [0.25, 1.0]
    half = importance_weights(np.array([0.5, 0.125]), size=4, beta=0.5)
    assert half.tolist() == [pytest.approx(math.sqrt(0.25)), 1.0]
    assert importance_weights(np.array([0.3, 0.1]), 9, beta=0.0).tolist() == [1.0, 1.0]
