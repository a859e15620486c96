"""What a person sees of a verification: the seeds that train now, and those that are done."""

from __future__ import annotations

import math
from statistics import fmean
from time import monotonic
from types import TracebackType

from coach.telemetry.console import RunProgress, duration, number
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0


class VerificationView:
    """Rows of the running seeds in a terminal, plain lines elsewhere; a line per finished seed.

    Args:
        console: where to print.
        seeds: all that will be trained.
        steps: environment steps of each.
        jobs: seeds trained at the same time.
    """

    def __init__(self, console: Console, seeds: list[int], steps: int, jobs: int = 1) -> None:
        self.console, self.seeds, self.steps, self.jobs = console, seeds, steps, jobs
        self._running: dict[int, RunProgress] = {}
        self._begun: dict[int, int] = {}  # steps that a resumed run had taken before
        self._done = 0
        self._taken = 0  # steps of the seeds that are done
        self._begin = self._said = monotonic()
        self._live: Live | None = None

    def __enter__(self) -> VerificationView:
        at_once = f", {self.jobs} at a time" if self.jobs > 1 else ""
        self._print(
            f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)} from {self.seeds[0]} on, "
            f"{self.steps:,} steps each{at_once}"
        )
        if self.console.is_terminal and not self.console.quiet:
            self._live = Live(
                get_renderable=self._rows, console=self.console, refresh_per_second=2,
                transient=True,
            )  # fmt: skip
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def progress(self, seed: int, progress: RunProgress) -> None:
        """Show how far a seed is; the first call says where it starts."""
        if seed not in self._begun:
            self._begun[seed] = progress.env_steps
        self._running[seed] = progress
        if self._live is None and monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = monotonic()
            for number_, running in self._running.items():
                self._print(f"seed {number_}: {self._words(running)}; {self._overall()}")

    def finished(
        self, seed: int, kept: list[float], last: list[float], env_steps: int, seconds: float
    ) -> None:
        """Print the returns of a seed's kept and last policy."""
        self._running.pop(seed, None)
        self._done += 1
        self._taken += env_steps - self._begun.get(seed, 0)
        self._print(
            f"seed {seed}: kept {number(fmean(kept))}, last {number(fmean(last))}; "
            f"{env_steps:,} steps in {seconds:.1f} s; {self._overall()}"
        )

    def say(self, seed: int, text: str) -> None:
        """Print a message of a seed's run."""
        self._print(f"seed {seed}: {text}")

    @property
    def seconds_left(self) -> float:
        """Time left at the speed so far; NaN before there is one. Final evaluations not counted."""
        taken = self._taken + sum(
            progress.env_steps - self._begun[seed] for seed, progress in self._running.items()
        )
        if not taken:
            return math.nan
        missing = (len(self.seeds) - self._done) * self.steps
        missing -= sum(progress.env_steps for progress in self._running.values())
        return max(0, missing) * (monotonic() - self._begin) / taken

    def _overall(self) -> str:
        if self._done == len(self.seeds):
            return f"all done in {duration(monotonic() - self._begin)}"
        left = self.seconds_left
        about = "" if math.isnan(left) else f", about {duration(left)} left"
        return f"{self._done} of {len(self.seeds)} done{about}"

    def _words(self, progress: RunProgress) -> str:
        return (
            f"{progress.env_steps:,} / {self.steps:,} steps, return {number(progress.training)}, "
            f"evaluation {number(progress.evaluation)}"
        )

    def _rows(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("seed", "steps", "of", "return", "evaluation"):
            table.add_column(column, justify="right", style="dim")
        for seed, progress in sorted(self._running.items()):
            table.add_row(
                str(seed),
                f"{progress.env_steps:,}",
                f"{self.steps:,}",
                number(progress.training),
                number(progress.evaluation),
            )
        gone = duration(monotonic() - self._begin)
        return Group(table, Text(f"{gone} gone, {self._overall()}"))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
