"""Schedules by hand."""

from __future__ import annotations

import pytest
from coach.core.errors import SettingError
from coach.functional.schedules import Constant, Exponential, Linear, Piecewise, as_schedule


def test_constant() -> None:
    assert [Constant(0.3)(step) for step in (0, 10**9)] == [0.3, 0.3]


def test_linear_ends_where_it_should() -> None:
    schedule = Linear(1.0, 0.0, 100)
    assert [schedule(step) for step in (0, 25, 100, 1000)] == [1.0, 0.75, 0.0, 0.0]


def test_exponential_halves() -> None:
    schedule = Exponential(8.0, 0.5, 10, end=1.5)
    assert [schedule(step) for step in (0, 10, 20, 30)] == [8.0, 4.0, 2.0, 1.5]


def test_piecewise_joins_its_points() -> None:
    schedule = Piecewise([(10, 1.0), (20, 0.5), (40, 0.1)])
    assert [schedule(step) for step in (0, 10, 15, 20, 50)] == [1.0, 1.0, 0.75, 0.5, 0.1]
    assert schedule(30) == pytest.approx(0.3)


@pytest.mark.parametrize("points", [[], [(5, 1.0), (5, 2.0)], [(5, 1.0), (4, 2.0)]])
def test_piecewise_needs_increasing_steps(points: list[tuple[int, float]]) -> None:
    with pytest.raises(SettingError, match="must increase"):
        Piecewise(points)


def test_numbers_are_constants() -> None:
    assert as_schedule(0.5)(99) == 0.5
