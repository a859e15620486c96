"""Distributions against torch.distributions and by sampling."""

from __future__ import annotations

import math

import pytest
import torch
from coach.core.context import Context
from coach.functional.distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    SquashedGaussian,
)
from scipy import stats
from torch import distributions as reference


def context(seed: int = 0, explore: bool = True) -> Context:
    return Context(0, torch.Generator().manual_seed(seed), torch.arange(1), explore)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_categorical_by_hand() -> None:
    # Odds 1 : 3.
    policy = Categorical(torch.tensor([[0.0, math.log(3.0)]]))
    assert policy.log_prob(torch.tensor([1])).item() == pytest.approx(math.log(0.75))
    assert policy.entropy().item() == pytest.approx(
        -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    )
    assert policy.mode().item() == 1


def test_categorical_equals_torch() -> None:
    logits, action = torch.randn(9, 5) * 3, torch.randint(5, (9,))
    mine, theirs = Categorical(logits), reference.Categorical(logits=logits)
    torch.testing.assert_close(mine.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(mine.entropy(), theirs.entropy())


def test_categorical_samples_have_the_right_frequencies() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn = Categorical(probabilities.log().expand(20_000, 4)).sample(context())
    counts = torch.bincount(drawn, minlength=4).numpy()
    assert stats.chisquare(counts, 20_000 * probabilities.numpy()).pvalue > 1e-3


def test_multicategorical_is_independent_choices() -> None:
    logits = torch.randn(7, 5)
    policy = MultiCategorical(logits, (2, 3))
    first, second = (reference.Categorical(logits=part) for part in logits.split([2, 3], -1))
    action = torch.stack([torch.randint(2, (7,)), torch.randint(3, (7,))], -1)
    wanted = first.log_prob(action[:, 0]) + second.log_prob(action[:, 1])
    torch.testing.assert_close(policy.log_prob(action), wanted)
    torch.testing.assert_close(policy.entropy(), first.entropy() + second.entropy())
    assert policy.sample(context()).shape == (7, 2)
    assert torch.equal(policy.mode()[:, 1], logits[:, 2:].argmax(-1))


def test_gaussian_equals_torch() -> None:
    mean, log_std, action = torch.randn(6, 3), torch.randn(3), torch.randn(6, 3)
    mine = DiagonalGaussian(mean, log_std)
    theirs = reference.Independent(reference.Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(mine.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(mine.entropy(), theirs.entropy())


def test_squashed_gaussian_equals_transformed_normal() -> None:
    mean, log_std = torch.randn(8, 2).double(), torch.randn(8, 2).double() * 0.3
    policy = SquashedGaussian(mean, log_std)
    theirs = reference.Independent(
        reference.TransformedDistribution(
            reference.Normal(mean, log_std.exp()),
            [reference.TanhTransform()],
        ),
        1,
    )
    action = torch.randn(8, 2).double().tanh()
    torch.testing.assert_close(policy.log_prob(action), theirs.log_prob(action))


def test_squashed_gaussian_by_hand() -> None:
    # A standard normal at 0 and at 1: density exp(-x^2 / 2) / sqrt(2 pi), tanh' = 1 - tanh^2.
    policy = SquashedGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    value = policy.log_prob(torch.tensor([[0.0, math.tanh(1)]])).item()
    wanted = -math.log(2 * math.pi) - 0.5 - math.log(1 - math.tanh(1) ** 2)
    assert value == pytest.approx(wanted, rel=1e-5)


def test_squashed_density_integrates_to_one() -> None:
    policy = SquashedGaussian(torch.full((20_000, 1), 0.3), torch.full((20_000, 1), -0.2))
    grid = torch.linspace(-1 + 1e-5, 1 - 1e-5, 20_000)[:, None]
    mass = policy.log_prob(grid).exp().sum() * (grid[1] - grid[0])
    assert mass.item() == pytest.approx(1.0, abs=1e-2)


def test_sample_with_log_prob_is_its_own_log_prob_and_in_bounds() -> None:
    policy = SquashedGaussian(torch.randn(500, 2).double(), torch.zeros(500, 2).double())
    action, log_prob = policy.sample_with_log_prob(torch.Generator().manual_seed(1))
    torch.testing.assert_close(policy.log_prob(action.double()), log_prob, rtol=1e-3, atol=1e-3)
    assert (action.abs() <= 1).all()


def test_samples_and_their_log_probs_have_the_gradients_of_the_formula() -> None:
    mean = torch.linspace(-30, 30, 60).double().reshape(30, 2).requires_grad_()
    log_std = torch.linspace(-3, 1, 60).double().reshape(30, 2).requires_grad_()
    policy = SquashedGaussian(mean, log_std)
    action, log_prob = policy.sample_with_log_prob(torch.Generator().manual_seed(3))
    noise = torch.randn(30, 2, generator=torch.Generator().manual_seed(3)).double()
    raw = mean + log_std.exp() * noise
    slope = 2 * (math.log(2) - raw - torch.nn.functional.softplus(-2 * raw))  # log of tanh's
    wanted = (reference.Normal(mean, log_std.exp()).log_prob(raw) - slope).sum(-1)
    torch.testing.assert_close(log_prob, wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(action, raw.tanh())
    pull = torch.randn(30).double()
    mine = torch.autograd.grad((log_prob * pull).sum() + action.sum(), (mean, log_std))
    theirs = torch.autograd.grad((wanted * pull).sum() + raw.tanh().sum(), (mean, log_std))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)


def test_log_prob_stays_finite_at_the_bounds() -> None:
    policy = SquashedGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    assert torch.isfinite(policy.log_prob(torch.tensor([[1.0, -1.0]]))).all()
    _, log_prob = SquashedGaussian(
        torch.full((1, 2), 50.0), torch.zeros(1, 2)
    ).sample_with_log_prob(torch.Generator().manual_seed(0))
    assert torch.isfinite(log_prob).all()


def test_sampling_is_a_function_of_the_stream() -> None:
    for policy in (
        Categorical(torch.zeros(50, 4)),
        DiagonalGaussian(torch.zeros(50, 2), torch.zeros(2)),
        SquashedGaussian(torch.zeros(50, 2), torch.zeros(50, 2)),
    ):
        assert torch.equal(policy.sample(context(3)), policy.sample(context(3)))
        assert not torch.equal(policy.sample(context(3)), policy.sample(context(4)))
