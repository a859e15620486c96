"""What a person sees while a run goes on: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class LiveView:
    """Steps, return, speed and time left.

    Args:
        console: where to print.
        limit: environment steps of the run.
        done: steps taken before, on resume.
        quiet: print nothing but warnings.
    """

    def __init__(self, console: Console, limit: int, done: int = 0, quiet: bool = False) -> None:
        self.console, self.limit, self.quiet = console, limit, quiet
        self._begin, self._first, self._said = monotonic(), done, monotonic()
        self._training = self._evaluation = math.nan
        self._progress: Progress | None = None
        if console.is_terminal and not console.is_jupyter and not quiet:
            self._progress = Progress(
                TextColumn("{task.completed:>9,.0f} / {task.total:,.0f} steps"),
                BarColumn(),
                TextColumn("{task.fields[words]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=console,
                refresh_per_second=4,
            )
            self._task = self._progress.add_task("", total=limit, completed=done, words="")
            self._progress.start()

    def update(self, env_steps: int, training_return: float | None) -> None:
        """Show how far the run is; cheap enough to be called often."""
        if training_return is not None:
            self._training = training_return
        if self._progress is not None:
            self._progress.update(self._task, completed=env_steps, words=self._words(env_steps))
        elif not self.quiet and monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._line(env_steps)

    def evaluated(self, env_steps: int, value: float) -> None:
        """Show the result of an evaluation."""
        self._evaluation = value
        if self._progress is not None:
            self.update(env_steps, None)
        elif not self.quiet:
            self._line(env_steps)

    def say(self, text: str) -> None:
        """Print a line above the live view."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._progress is not None:
            self._progress.stop()

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


def number(value: float) -> str:
    """A return in few digits: one behind the point, two for small ones; "-" if there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
