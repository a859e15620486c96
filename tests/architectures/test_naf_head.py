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


def by_hand(raw: NDArray[Any], low: NDArray[Any], high: NDArray[Any], action: NDArray[Any]) -> Any:
    """V, m and Q of one row of the layer's output, entry by entry, in double precision."""
    size, half = len(low), (high - low) / 2
    value, mean = raw[0], (low + high) / 2 + half * np.tanh(raw[1 : 1 + size])
    lower = np.zeros((size, size))
    below = iter(raw[1 + 2 * size :])
    for row in range(size):
        for column in range(row):
            lower[row, column] = next(below)
        lower[row, row] = np.exp(raw[1 + size + row])
    precision = lower @ lower.T
    away = (action - mean) / half
    total = sum(away[i] * precision[i, j] * away[j] for i in range(size) for j in range(size))
    return value, mean, value - total / 2


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_values_are_the_quadratic_form(size: int) -> None:
    head, features = head_and_features(size)
    low, high = (bound.double().numpy() for bound in spec(size).bounds("test"))
    action = low + (high - low) * np.random.default_rng(0).random((ROWS, size))
    with torch.no_grad():
        values = head(features)
        told = values.of(torch.from_numpy(action).float())
        raw = head.out(features).double().numpy()
    for row in range(ROWS):
        value, mean, q = by_hand(raw[row], low, high, action[row])
        assert values.value[row].item() == pytest.approx(value, rel=1e-5)
        assert values.mean[row].tolist() == pytest.approx(mean.tolist(), rel=1e-4, abs=1e-5)
        assert told[row].item() == pytest.approx(q, rel=1e-4)


def test_one_row_by_hand() -> None:
    """Bounds (-2, 4) and (0, 1); L = [[2, 0], [3, 1]] in half ranges."""
    bounds = spaces.Box(np.array([-2, 0], np.float32), np.array([4, 1], np.float32))
    head = NormalizedAdvantage(1, Spec(OBS, bounds))
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor([2.0, 0.0, 0.0, np.log(2), 0.0, 3.0]))
        values = head(torch.zeros(1, 1))
        assert values.mean.tolist() == [[1.0, 0.5]]
        # (4, 0.75) lies (1, 1/2) half ranges away; L^T of that is (3.5, 0.5).
        told = values.of(torch.tensor([[4.0, 0.75]]))
    assert told.item() == pytest.approx(2 - (3.5**2 + 0.5**2) / 2)
    # In the action's own units: rows of L divided by 3 and by 1/2.
    assert values.factor[0].flatten().tolist() == pytest.approx([2 / 3, 0, 6, 2])
    assert values.precision[0].flatten().tolist() == pytest.approx([4 / 9, 4, 4, 40])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_action_is_worth_more_than_the_mean(size: int) -> None:
    head, features = head_and_features(size)
    low, high = spec(size).bounds("test")
    values = head(features)
    torch.testing.assert_close(values.of(values.mean), values.value)
    for _ in range(20):
        away = 0.01 + 0.99 * torch.rand(ROWS, size)
        assert (values.of(values.mean + away) < values.value).all()
        assert (values.of(low + (high - low) * away) <= values.value).all()
    eigenvalues = torch.linalg.eigvalsh(values.precision)
    assert (eigenvalues > 0).all()


def test_the_mean_reaches_both_bounds_and_keeps_to_them() -> None:
    head, features = head_and_features(3)
    low, high = spec(3).bounds("test")
    mean = head(1_000 * features).mean
    assert (mean >= low - 1e-5).all()
    assert (mean <= high + 1e-5).all()
    at_a_bound = (mean - low < 1e-3) | (high - mean < 1e-3)
    assert at_a_bound.float().mean() > 0.9


@pytest.mark.parametrize("size", [1, 3])
def test_gradients_are_those_of_the_formula(size: int) -> None:
    """Against autograd on L put together entry by entry."""
    head, features = head_and_features(size)
    low, high = spec(size).bounds("test")
    half, action = (high - low) / 2, low + (high - low) * torch.rand(ROWS, size)
    raw = head.out(features)
    rows = []
    for row in range(size):
        start = 1 + 2 * size + row * (row - 1) // 2
        below = [raw[:, start + column] for column in range(row)]
        above = [torch.zeros(ROWS)] * (size - row - 1)
        rows.append(torch.stack([*below, raw[:, 1 + size + row].exp(), *above], -1))
    lower = torch.stack(rows, 1)
    mean = (low + high) / 2 + half * raw[:, 1 : 1 + size].tanh()
    away = (action - mean) / half
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


def test_the_unit_of_the_action_does_not_matter() -> None:
    """The same layer over bounds a hundred times as wide values scaled actions alike."""
    narrow, features = head_and_features(2)
    low, high = spec(2).bounds("test")
    wide = NormalizedAdvantage(
        FEATURES, Spec(OBS, spaces.Box(100 * low.numpy(), 100 * high.numpy()))
    )
    wide.load_state_dict(narrow.state_dict())
    action = low + (high - low) * torch.rand(ROWS, 2)
    torch.testing.assert_close(wide(features).of(100 * action), narrow(features).of(action))


@pytest.mark.parametrize(
    "action", [spaces.Discrete(3), spaces.Box(-float("inf"), 1, (2,))], ids=str
)
def test_actions_without_bounds_are_refused(action: spaces.Space[Any]) -> None:
    with pytest.raises(SettingError, match=r"head naf (serves|needs bounded)"):
        NormalizedAdvantage(FEATURES, Spec(OBS, action))
