"""What a person sees while a run goes on: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from coach.core.source import Standing
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0
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
        self._begin, self._first, self._said = monotonic(), done, monotonic()
        self._training = self._evaluation = math.nan
        self._standing: Standing | None = None
        self._live: Live | None = None
        if console.is_terminal and not console.is_jupyter and not quiet:
            self._progress = Progress(
                TextColumn("{task.completed:>9,.0f} / {task.total:,.0f} steps"),
                BarColumn(),
                TextColumn("{task.fields[words]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=console,
            )
            self._task = self._progress.add_task("", total=limit, completed=done, words="")
            self._live = Live(self._progress, console=console, refresh_per_second=4)
            self._live.start()

    def update(self, env_steps: int, training_return: float | None) -> None:
        """Show how far the run is; cheap enough to be called often."""
        if training_return is not None:
            self._training = training_return
        self._report(env_steps)
        if self._live is not None:
            self._progress.update(self._task, completed=env_steps, words=self._words(env_steps))
        elif not self.quiet and monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._line(env_steps)

    def evaluated(self, env_steps: int, value: float) -> None:
        """Show the result of an evaluation."""
        self._evaluation = value
        if self._live is not None:
            self.update(env_steps, None)
            return
        self._report(env_steps)
        if not self.quiet:
            self._line(env_steps)

    def workers(self, standing: Standing) -> None:
        """Show how the workers do."""
        self._standing = standing
        if self._live is not None:
            self._live.update(Group(self._progress, *_worker_rows(standing)))

    def say(self, text: str) -> None:
        """Print a line above the live view."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def _report(self, env_steps: int) -> None:
        if self.listener is not None:
            self.listener(RunProgress(env_steps, self._training, self._evaluation))

    def _words(self, env_steps: int) -> str:
        speed = (env_steps - self._first) / max(monotonic() - self._begin, 1e-9)
        returns = f"return {number(self._training)}  evaluation {number(self._evaluation)}"
        return f"{returns}  {speed:,.0f}/s"

    def _line(self, env_steps: int) -> None:
        self._said = monotonic()
        elapsed = self._said - self._begin
        speed = (env_steps - self._first) / max(elapsed, 1e-9)
        left = max(0, self.limit - env_steps) / max(speed, 1e-9)
        self.say(
            f"{env_steps:>9,} / {self.limit:,} steps  {self._words(env_steps)}  "
            f"{elapsed:.0f} s, {left:.0f} s left"
        )
        if self._standing is not None:
            self.say(f"          {_in_a_line(self._standing)}")


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
