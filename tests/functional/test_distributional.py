"""Projections and quantile regression: by hand, and against loops that are written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coach.functional.distributional import midpoints, project, quantile_huber
from hypothesis import given
from hypothesis import strategies as st

SUPPORT = torch.tensor([-1.0, 0.0, 1.0, 2.0])


def projected(probability: list[float], reward: float, discount: float) -> list[float]:
    rows = (torch.tensor([probability]), torch.tensor([reward]), torch.tensor([discount]))
    found: list[float] = project(SUPPORT, *rows)[0].tolist()
    return found


@pytest.mark.parametrize(
    ("probability", "reward", "discount", "wanted"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.0, 1.0, [0.1, 0.2, 0.3, 0.4]),  # nothing moves
        ([0.1, 0.2, 0.3, 0.4], 1.0, 0.0, [0.0, 0.0, 1.0, 0.0]),  # terminal, on an atom
        ([0.1, 0.2, 0.3, 0.4], 0.25, 0.0, [0.0, 0.75, 0.25, 0.0]),  # terminal, between two
        ([0.1, 0.2, 0.3, 0.4], 9.0, 1.0, [0.0, 0.0, 0.0, 1.0]),  # beyond the upper end
        ([0.1, 0.2, 0.3, 0.4], -9.0, 1.0, [1.0, 0.0, 0.0, 0.0]),  # beyond the lower end
        ([1.0, 0.0, 0.0, 0.0], 0.0, 0.5, [0.5, 0.5, 0.0, 0.0]),  # -1 becomes -0.5
        ([0.0, 0.0, 0.5, 0.5], 0.5, 0.5, [0.0, 0.0, 0.75, 0.25]),  # 1 -> 1.0, 2 -> 1.5
    ],
)
def test_projection_by_hand(
    probability: list[float], reward: float, discount: float, wanted: list[float]
) -> None:
    assert projected(probability, reward, discount) == pytest.approx(wanted, abs=1e-6)


@given(st.integers(2, 60), st.integers(0, 10_000))
def test_projection_equals_a_triangular_kernel(atoms: int, seed: int) -> None:
    """Each atom gets of each moved atom what a hat function of its distance says."""
    rng = np.random.default_rng(seed)
    support = np.linspace(-3, 5, atoms)
    probability = rng.dirichlet(np.ones(atoms), 6)
    reward, discount = rng.normal(size=6) * 4, rng.random(6) * (rng.random(6) < 0.8)
    moved = np.clip(reward[:, None] + discount[:, None] * support, -3, 5)
    distance = np.abs(moved[:, None, :] - support[None, :, None]) / (support[1] - support[0])
    wanted = (np.clip(1 - distance, 0, 1) * probability[:, None, :]).sum(-1)
    tensors = (torch.from_numpy(array) for array in (support, probability, reward, discount))
    found = project(*tensors).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    np.testing.assert_allclose(found.sum(-1), 1.0)


def test_quantile_loss_by_hand() -> None:
    now, target = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 3.0]])
    # Errors of the first quantile (0.25): 0.5 and 3; of the second (0.75): -0.5 and 2.
    first = 0.25 * (0.5 * 0.25 + (3 - 0.5)) / 2
    second = (0.25 * 0.5 * 0.25 + 0.75 * (2 - 0.5)) / 2
    found = quantile_huber(now, target, midpoints(2), 1.0)
    assert found.tolist() == pytest.approx([first + second])
    plain = 0.25 * (0.5 + 3) / 2 + (0.25 * 0.5 + 0.75 * 2) / 2
    assert quantile_huber(now, target, midpoints(2), 0.0).tolist() == pytest.approx([plain])
    skewed = quantile_huber(now, target, midpoints(2), 0.0, torch.tensor([[0.9, 0.1]]))
    by_share = 0.25 * (0.9 * 0.5 + 0.1 * 3) + (0.9 * 0.25 * 0.5 + 0.1 * 0.75 * 2)
    assert skewed.tolist() == pytest.approx([by_share])


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 10_000), st.floats(0.1, 3))
def test_quantile_loss_equals_loops(n: int, m: int, seed: int, kappa: float) -> None:
    rng = np.random.default_rng(seed)
    now, target = rng.normal(size=(3, n)) * 2, rng.normal(size=(3, m)) * 2
    fraction = rng.random((3, n))
    wanted = np.zeros(3)
    for row in range(3):
        for i in range(n):
            for j in range(m):
                u = target[row, j] - now[row, i]
                huber = 0.5 * u * u if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
                wanted[row] += abs(fraction[row, i] - (u < 0)) * huber / kappa / m
    tensors = (torch.from_numpy(array) for array in (now, target, fraction))
    np.testing.assert_allclose(quantile_huber(*tensors, kappa).numpy(), wanted, rtol=1e-9)


def test_quantile_regression_finds_the_quantiles() -> None:
    generator = torch.Generator().manual_seed(0)
    now = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.Adam([now], lr=0.02)
    for _ in range(1_500):
        sample = torch.randn(1, 256, generator=generator)
        optimizer.zero_grad()
        quantile_huber(now, sample, midpoints(5), 0.0).sum().backward()
        optimizer.step()
    wanted = torch.distributions.Normal(0, 1).icdf(midpoints(5))
    torch.testing.assert_close(now.detach()[0], wanted, atol=0.08, rtol=0)


def test_midpoints() -> None:
    assert midpoints(4).tolist() == [0.125, 0.375, 0.625, 0.875]
