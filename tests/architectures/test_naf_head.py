"""The naf head against the quadratic form written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.heads.naf import NormalizedAdvantage
from coach.core.errors import SettingError
from coach.core.spec import Spec
from gymnasium import spaces
from numpy.typing import NDArray

OBS = spaces.Box(-1, 1, (3,))
FEATURES, ROWS = 5, 7


def spec(size: int) -> Spec:
    low = np.linspace(-2, 0, size, dtype=np.float32)
    return Spec(OBS, spaces.Box(low, low + np.arange(1, size + 1, dtype=np.float32)))


def head_and_features(size: int) -> tuple[NormalizedAdvantage, torch.Tensor]:
    torch.manual_seed(size)
    return NormalizedAdvantage(FEATURES, spec(size)), 2 * torch.randn(ROWS, FEATURES)


def by_hand(raw: NDArray[Any], action: NDArray[Any]) -> Any:
    """V, m and Q of one row of the layer's output, entry by entry, in double precision."""
    size = len(action)
    value, mean = raw[0], np.tanh(raw[1 : 1 + size])
    lower = np.zeros((size, size))
    below = iter(raw[1 + 2 * size :])
    for row in range(size):
        for column in range(row):
            lower[row, column] = next(below)
        lower[row, row] = np.exp(raw[1 + size + row])
    precision = lower @ lower.T
    away = action - mean
    total = sum(away[i] * precision[i, j] * away[j] for i in range(size) for j in range(size))
    return value, mean, value - total / 2


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_values_are_the_quadratic_form(size: int) -> None:
    head, features = head_and_features(size)
    action = 2 * np.random.default_rng(0).random((ROWS, size)) - 1
    with torch.no_grad():
        values = head(features)
        told = values.of(torch.from_numpy(action).float())
        raw = head.out(features).double().numpy()
    for row in range(ROWS):
        value, mean, q = by_hand(raw[row], action[row])
        assert values.value[row].item() == pytest.approx(value, rel=1e-5)
        assert values.mean[row].tolist() == pytest.approx(mean.tolist(), rel=1e-4, abs=1e-5)
        assert told[row].item() == pytest.approx(q, rel=1e-4)


def test_one_row_by_hand() -> None:
    """L = [[2, 0], [3, 1]]; the bounds of the environment do not matter."""
    head = NormalizedAdvantage(1, spec(2))
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor([2.0, 0.0, 0.0, np.log(2), 0.0, 3.0]))
        values = head(torch.zeros(1, 1))
        assert values.mean.tolist() == [[0.0, 0.0]]
        told = values.of(torch.tensor([[1.0, 0.5]]))  # L^T of it is (3.5, 0.5)
    assert told.item() == pytest.approx(2 - (3.5**2 + 0.5**2) / 2)
    assert values.factor[0].flatten().tolist() == pytest.approx([2, 0, 3, 1])
    assert values.precision[0].flatten().tolist() == pytest.approx([4, 6, 6, 10])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_action_is_worth_more_than_the_mean(size: int) -> None:
    head, features = head_and_features(size)
    values = head(features)
    torch.testing.assert_close(values.of(values.mean), values.value)
    for _ in range(20):
        away = 0.01 + 0.99 * torch.rand(ROWS, size)
        assert (values.of(values.mean + away) < values.value).all()
        assert (values.of(2 * away - 1) <= values.value).all()
    eigenvalues = torch.linalg.eigvalsh(values.precision)
    assert (eigenvalues > 0).all()


def test_the_mean_reaches_both_bounds_and_keeps_to_them() -> None:
    head, features = head_and_features(3)
    mean = head(1_000 * features).mean
    assert (mean.abs() <= 1).all()
    assert (mean.abs() > 0.999).float().mean() > 0.9


@pytest.mark.parametrize("size", [1, 3])
def test_gradients_are_those_of_the_formula(size: int) -> None:
    """Against autograd on L put together entry by entry."""
    head, features = head_and_features(size)
    action = 2 * torch.rand(ROWS, size) - 1
    raw = head.out(features)
    rows = []
    for row in range(size):
        start = 1 + 2 * size + row * (row - 1) // 2
        below = [raw[:, start + column] for column in range(row)]
        above = [torch.zeros(ROWS)] * (size - row - 1)
        rows.append(torch.stack([*below, raw[:, 1 + size + row].exp(), *above], -1))
    lower = torch.stack(rows, 1)
    away = action - raw[:, 1 : 1 + size].tanh()
    wanted = raw[:, 0] - 0.5 * torch.einsum("bi,bij,bkj,bk->b", away, lower, lower, away)
    told = head(features).of(action)
    torch.testing.assert_close(told, wanted)
    parameters = list(head.parameters())
    weight = torch.randn(ROWS)
    for mine, theirs in zip(
        torch.autograd.grad((weight * told).sum(), parameters),
        torch.autograd.grad((weight * wanted).sum(), parameters),
    ):
        torch.testing.assert_close(mine, theirs)
        assert mine.reshape(mine.shape[0], -1).any(-1).all(), "every output is of use"


@pytest.mark.parametrize(
    "action", [spaces.Discrete(3), spaces.Box(-float("inf"), 1, (2,))], ids=str
)
def test_actions_without_bounds_are_refused(action: spaces.Space[Any]) -> None:
    with pytest.raises(SettingError, match=r"head naf (serves|needs bounded)"):
        NormalizedAdvantage(FEATURES, Spec(OBS, action))
