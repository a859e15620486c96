"""Values that change with the environment step; pure functions of it, so nothing to save.

In a preset a bare number is a constant and ``{start, end, steps}`` is linear; others say ``type:``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

from coach.core.errors import SettingError
from coach.core.registry import register
from coach.core.schema import Count, Fraction


class Schedule(ABC):
    """A value as a function of the number of environment steps taken."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The value at ``step``."""

    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that it takes."""
        ends = self(0), self(10**12)
        return min(ends), max(ends)

    @staticmethod
    def infer_type(value: Any, key: str) -> Any:
        """Let presets write a number, or start / end / steps, without ``type:``."""
        if isinstance(value, bool):
            raise SettingError(key, f"expected a number or a schedule, got {value}")
        if isinstance(value, int | float):
            return {"type": "constant", "value": value}
        if isinstance(value, str):
            try:
                return {"type": "constant", "value": float(value)}  # PyYAML reads 1e-4 as text
            except ValueError:
                return value
        if isinstance(value, Mapping) and "type" not in value:
            return {"type": "linear", **value}
        return value


@register("schedule", "constant")
class Constant(Schedule):
    """Always the same value."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, step: int) -> float:
        return self.value


@register("schedule", "linear")
class Linear(Schedule):
    """From ``start`` to ``end`` in a straight line over ``steps``, then ``end``."""

    def __init__(self, start: float, end: float, steps: Count) -> None:
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * max(0.0, step / self.steps)


@register("schedule", "exponential")
class Exponential(Schedule):
    """``start * decay ** (step / steps)``, never below ``end``.

    Args:
        start: value at step 0.
        decay: factor applied every ``steps`` steps, continuously.
        steps: steps per factor.
        end: lower bound.
    """

    def __init__(self, start: float, decay: Fraction, steps: Count, end: float = 0.0) -> None:
        self.start, self.decay, self.steps, self.end = start, decay, steps, end

    def __call__(self, step: int) -> float:
        share: float = self.decay ** (step / self.steps)
        return max(self.end, self.start * share)


@register("schedule", "piecewise")
class Piecewise(Schedule):
    """Straight lines between points ``[step, value]``; flat before the first and after the last.

    Args:
        points: at least one pair, steps strictly increasing.
    """

    def __init__(self, points: list[tuple[int, float]]) -> None:
        steps = [step for step, _ in points]
        if not points or any(later <= earlier for earlier, later in pairwise(steps)):
            raise SettingError(
                "points",
                f"the steps of a piecewise schedule must increase, got {steps}",
                "Write points: [[0, 1.0], [10000, 0.1], [50000, 0.01]].",
            )
        self.points = points

    def limits(self) -> tuple[float, float]:
        values = [value for _, value in self.points]
        return min(values), max(values)

    def __call__(self, step: int) -> float:
        before = self.points[0]
        for after in self.points:
            if step < after[0]:
                if after is before:
                    return before[1]
                share = (step - before[0]) / (after[0] - before[0])
                return before[1] + (after[1] - before[1]) * share
            before = after
        return before[1]


def as_schedule(
    value: Schedule | float, setting: str = "", low: float = -math.inf, high: float = math.inf
) -> Schedule:
    """A number as a constant schedule; schedules as they are.

    Args:
        value: either.
        setting: named if the value leaves its range.
        low: least value that makes sense.
        high: largest value that makes sense.

    Raises:
        SettingError: the schedule goes below ``low`` or above ``high``.
    """
    schedule = value if isinstance(value, Schedule) else Constant(value)
    lowest, highest = schedule.limits()
    if lowest < low or highest > high:
        goes = f"is {lowest:g}" if lowest == highest else f"goes from {lowest:g} to {highest:g}"
        allowed = f"at least {low:g}" if high == math.inf else f"within {low:g} and {high:g}"
        raise SettingError(setting, f"it must stay {allowed}, but {goes}")
    return schedule
