"""What a person sees while a run goes on: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from coach.core.source import Standing
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0
_SPEED_SECONDS = 30.0  # over which the speed is measured
_NARROWEST_BAR = 10
_MOST_ROWS = 16  # of workers; the rest is summed up


@dataclass(frozen=True)
class RunProgress:
    """How far a run is; returns are NaN as long as there are none.

    Args:
        env_steps: environment steps taken.
        training: mean return of the episodes since the last line.
        evaluation: mean return of the last evaluation.
    """

    env_steps: int
    training: float = math.nan
    evaluation: float = math.nan


#: Called with the progress of a run at every line of progress.csv and every evaluation.
Listener = Callable[[RunProgress], None]


class LiveView:
    """Steps, return, speed and time left; below that the workers, if there are any.

    Args:
        console: where to print.
        limit: environment steps of the run.
        done: steps taken before, on resume.
        quiet: print nothing but warnings.
        listener: called with the progress, quiet or not.
    """

    def __init__(
        self,
        console: Console,
        limit: int,
        done: int = 0,
        quiet: bool = False,
        listener: Listener | None = None,
    ) -> None:
        self.console, self.limit, self.quiet = console, limit, quiet
        self.listener = listener
        self._begin = self._said = monotonic()
        self._env_steps = done
        self._marks = deque([(self._begin, done)])  # times and steps, for the speed
        self._training = self._evaluation = math.nan
        self._standing: Standing | None = None
        self._live: Live | None = None
        if console.is_terminal and not console.is_jupyter and not quiet:
            self._live = Live(get_renderable=self._shown, console=console, refresh_per_second=4)
            self._live.start()

    def update(self, env_steps: int, training_return: float | None) -> None:
        """Show how far the run is; cheap enough to be called often."""
        if training_return is not None:
            self._training = training_return
        self._note(env_steps)
        late = monotonic() - self._said > SECONDS_BETWEEN_LINES
        if self._live is None and not self.quiet and late:
            self._line()

    def evaluated(self, env_steps: int, value: float) -> None:
        """Show the result of an evaluation."""
        self._evaluation = value
        self._note(env_steps)
        if self._live is None and not self.quiet:
            self._line()

    def workers(self, standing: Standing) -> None:
        """Show how the workers do."""
        self._standing = standing

    def say(self, text: str) -> None:
        """Print a line above the live view."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def _note(self, env_steps: int) -> None:
        now, self._env_steps = monotonic(), env_steps
        self._marks.append((now, env_steps))
        while len(self._marks) > 2 and now - self._marks[1][0] > _SPEED_SECONDS:
            self._marks.popleft()
        if self.listener is not None:
            self.listener(RunProgress(env_steps, self._training, self._evaluation))

    def _speed(self) -> float:
        """Environment steps per second of late."""
        (before, first), (now, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(now - before, 1e-9)

    def _left(self) -> str:
        speed = self._speed()
        return duration(max(0, self.limit - self._env_steps) / speed) if speed > 0 else "-"

    def _line(self) -> None:
        self._said = monotonic()
        self.say(
            f"{self._env_steps:>9,} / {self.limit:,} steps  return {number(self._training)}  "
            f"evaluation {number(self._evaluation)}  {self._speed():,.0f}/s  "
            f"{duration(self._said - self._begin)}, {self._left()} left"
        )
        if self._standing is not None:
            self.say(f"          {_in_a_line(self._standing)}")

    def _shown(self) -> RenderableType:
        rows = _worker_rows(self._standing) if self._standing is not None else []
        return Group(self._progress(self.console.width), *rows)

    def _progress(self, width: int) -> RenderableType:
        """The most that fits into one line: first the bar goes, then words and figures."""
        steps, limit = self._env_steps, self.limit
        share = f"{min(1.0, steps / limit):.0%}"
        of_all, of_all_short = f"{steps:,} / {limit:,} steps", f"{_short(steps)} / {_short(limit)}"
        returns = f"return {number(self._training)}  evaluation {number(self._evaluation)}"
        speed, left = f"{self._speed():,.0f}/s", f"{self._left()} left"
        gone = duration(monotonic() - self._begin)
        words = f"{returns}  {speed}  {gone}, {left}"
        space = width - len(of_all) - len(words) - 4
        if space >= _NARROWEST_BAR:
            row = Table.grid(padding=(0, 2, 0, 0))
            row.add_row(of_all, ProgressBar(limit, min(steps, limit), width=space), words)
            return row
        evaluation = f"evaluation {number(self._evaluation)}"
        choices = (
            f"{of_all}  {words}",
            f"{of_all_short}  {words}",
            f"{of_all_short}  {returns}  {speed}  {left}",
            f"{share}  {returns}  {speed}  {left}",
            f"{share}  {returns}  {left}",
            f"{share}  {evaluation}  {left}",
            f"{share}  {left}",
        )
        fitting = next((choice for choice in choices if len(choice) <= width), choices[-1])
        return Text(fitting, no_wrap=True, overflow="crop")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(steps: int) -> str:
    """A number of steps in few characters, such as 1.25M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if steps >= size:
            return f"{steps / size:.3g}{letter}"
    return str(steps)


def number(value: float) -> str:
    """A return in few digits: one behind the point, two for small ones; "-" if there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _worker_rows(standing: Standing) -> list[RenderableType]:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("worker", "env steps/s", "policy lag", "waits", "restarts"):
        table.add_column(column, justify="right", style="dim")
    for worker in standing.workers[:_MOST_ROWS]:
        table.add_row(
            str(worker.number),
            f"{worker.env_steps_per_s:,.0f}",
            "-" if worker.policy_lag is None else f"{worker.policy_lag:.1f}",
            _percent(worker.waits),
            str(worker.restarts),
        )
    return [table, Text(_in_a_line(standing), style="dim")]


def _in_a_line(standing: Standing) -> str:
    speed = sum(worker.env_steps_per_s for worker in standing.workers)
    count = len(standing.workers)
    told = [
        f"{count} worker{'s' * (count > 1)}: {speed:,.0f}/s",
        f"{standing.restarts} restart{'s' * (standing.restarts != 1)}",
    ]
    if standing.policy_lag is not None:
        told.append(f"policy lag {standing.policy_lag:.1f} (at most {standing.policy_lag_max})")
    if standing.queued is not None:
        told.append(f"{standing.queued:.1f} fragments queued")
    if standing.discarded:
        told.append(f"{standing.discarded} dropped for their age")
    if standing.learner_waits is not None:
        told.append(f"learner waits {_percent(standing.learner_waits)}")
    return ", ".join(told) + (
        f". {standing.advice[0].upper()}{standing.advice[1:]}." if standing.advice else ""
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
