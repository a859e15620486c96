"""Where the time of a run goes, activity by activity: what `coach train --profile` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

REST = "everything else"


@dataclass
class Activity:
    """What one kind of work took.

    Args:
        seconds: of wall time, without that of activities inside it.
        calls: how often it was begun.
    """

    seconds: float = 0.0
    calls: int = 0


class Profile:
    """Times chosen methods of one thread; the time of nested ones counts for the inner one alone.

    It costs about a microsecond a call, and nothing where it is not used.
    """

    def __init__(self) -> None:
        self.activities: dict[str, Activity] = {REST: Activity()}
        self._open: list[tuple[str, bool]] = [(REST, False)]
        self._since = perf_counter()

    def watch(self, owner: Any, method: str, label: str, whole: bool = False) -> None:
        """Time a method of an object from now on.

        Args:
            owner: has the method.
            method: its name; what it returns may be an iterator, whose steps are timed too.
            label: the activity it counts as.
            whole: let what it calls count for it too, even if that is watched.
        """
        inner: Callable[..., Any] = getattr(owner, method)

        @wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._enter(label, whole)
            try:
                result = inner(*args, **kwargs)
            finally:
                self._leave()
            return self._steps(result, label) if isinstance(result, Iterator) else result

        setattr(owner, method, timed)

    def start(self) -> None:
        """Begin the time that belongs to nothing yet."""
        self._since = perf_counter()

    def stop(self) -> None:
        """Count the time up to now."""
        self._charge()

    def print(self, console: Console, elsewhere: Mapping[str, float]) -> None:
        """Print activities by time; ``elsewhere`` are seconds that workers spent meanwhile."""
        total = sum(activity.seconds for activity in self.activities.values())
        table = Table(title="Where the time went", title_justify="left")
        table.add_column("activity", style="cyan")
        for column in ("seconds", "share", "calls", "us per call"):
            table.add_column(column, justify="right")
        ordered = sorted(self.activities.items(), key=lambda item: -item[1].seconds)
        for label, activity in ordered:
            each = f"{activity.seconds / activity.calls * 1e6:,.0f}" if activity.calls else ""
            table.add_row(
                label,
                f"{activity.seconds:.2f}",
                f"{activity.seconds / max(total, 1e-9):.1%}",
                f"{activity.calls:,}" if activity.calls else "",
                each,
            )
        console.print(table)
        if elsewhere:
            spent = sum(elsewhere.values())
            words = ", ".join(f"{k} {v / max(spent, 1e-9):.0%}" for k, v in elsewhere.items())
            console.print(f"Meanwhile in the actors: {words}.", highlight=False)

    def _steps(self, inner: Iterator[Any], label: str) -> Iterator[Any]:
        while True:
            self._enter(label, False)
            try:
                item = next(inner)
            except StopIteration:
                return
            finally:
                self._leave()
            yield item

    def _enter(self, label: str, whole: bool) -> None:
        self._charge()
        outer, covers = self._open[-1]
        self._open.append((outer, True) if covers else (label, whole))
        if not covers:
            self.activities.setdefault(label, Activity()).calls += 1

    def _leave(self) -> None:
        self._charge()
        self._open.pop()

    def _charge(self) -> None:
        now = perf_counter()
        self.activities[self._open[-1][0]].seconds += now - self._since
        self._since = now
