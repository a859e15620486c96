"""Collects what a run has to tell and hands it to CSV, TensorBoard and the console.

progress.csv and evaluations.csv hold only what is a function of the settings and the seed, so that
a resumed run writes the same bytes; everything about time goes to timing.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from coach.core.batch import Batch
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.source import Episode, Report, Source
from coach.telemetry.console import LiveView
from coach.telemetry.means import Means
from coach.telemetry.sifter import Sifter
from coach.telemetry.table import Table
from coach.telemetry.tensorboard import TensorBoard
from coach.telemetry.timing import Timing
from torch import Tensor


class Telemetry:
    """Means over the steps since the last line, written every ``log_every`` environment steps.

    Args:
        folder: the run's folder.
        learner: asked for learning rates and, through its agent, exploration rates.
        memory: asked for its fill and the like.
        source: asked about its workers.
        board: TensorBoard writer.
        view: console view.
        log_every: environment steps per line.
        histograms: also write histograms of actions and weights.
    """

    def __init__(
        self,
        folder: Path,
        learner: Learner,
        memory: Memory,
        source: Source,
        board: TensorBoard,
        view: LiveView,
        log_every: int,
        histograms: bool = False,
    ) -> None:
        self.learner, self.memory, self.board, self.view = learner, memory, board, view
        self.source = source
        self.log_every, self.histograms = log_every, histograms
        self.progress = Table(folder / "progress.csv")
        self.evaluations = Table(folder / "evaluations.csv")
        self.timing = Table(folder / "timing.csv")
        self.means = Means()
        self._episodes: list[Episode] = []
        self._episode_count = 0
        self._dropped = 0
        self._sifter = Sifter()
        self._env_steps = 0
        self._spent = Timing()
        self._advice = ""

    def update(self, metrics: Mapping[str, Tensor]) -> None:
        """Note the metrics of one update; nothing is fetched yet."""
        self.means.add(metrics)

    def fragment(
        self, env_steps: int, fragment: Batch, report: Report, learn_seconds: float
    ) -> None:
        """Note what a fragment brought; write a line if it is time."""
        self._episodes += report.episodes
        self._episode_count += len(report.episodes)
        self._dropped += report.dropped
        for text in self._sifter(report.notices) if report.notices else ():
            self.view.say(text)
        self._spent.add({**report.seconds, "learn": learn_seconds})
        before, self._env_steps = self._env_steps, env_steps
        if env_steps // self.log_every > before // self.log_every:
            self._write_line(env_steps, fragment)

    def evaluation(self, env_steps: int, episodes: Sequence[Episode]) -> None:
        """Note the result of an evaluation of the policy as it was after ``env_steps``."""
        found = {
            "evaluation/return": fmean(episode.value for episode in episodes),
            "evaluation/length": fmean(episode.length for episode in episodes),
        }
        self.evaluations.add({"env_steps": env_steps, **found})
        self.board.scalars(found, env_steps)
        self.view.evaluated(self._env_steps, found["evaluation/return"])

    def state_dict(self) -> dict[str, Any]:
        """Unfinished sums and the extents of the tables."""
        return {
            "env_steps": self._env_steps,
            "sums": self.means.state_dict(),
            "episodes": [[e.env_id, e.value, e.length] for e in self._episodes],
            "episode_count": self._episode_count,
            "dropped": self._dropped,
            "columns": self.progress.columns,
            "rows": self.progress.rows,
            "checksums": self.progress.checksums,
            "evaluations": self.evaluations.extent(),
            "timing": self.timing.extent(),
        }

    def load_state_dict(self, state: dict[str, Any], warn: Callable[[str], None]) -> None:
        """Continue from `state_dict`; lines written after it are dropped.

        Args:
            state: see `state_dict`.
            warn: told of tables that are damaged.
        """
        self._env_steps = state["env_steps"]
        self.means.load_state_dict(state["sums"])
        self._episodes = [Episode(*values) for values in state["episodes"]]
        self._episode_count = state["episode_count"]
        self._dropped = state.get("dropped", 0)  # older checkpoints do not count them
        # Of older runs there are no checksums, and of the oldest no evaluations.
        self.progress.cut(state["columns"], state["rows"], state.get("checksums"), warn)
        self.evaluations.cut(*_extent(state.get("evaluations", ([], 0))), warn)
        self.timing.cut(*_extent(state["timing"]), warn)
        self._spent = Timing(self._env_steps, self.learner.version)

    def last_line(self) -> None:
        """Write what there is of a run that was shorter than a line's steps.

        It is dropped again when the run is continued, so call this after the last checkpoint.
        """
        if not self.progress.rows and self._env_steps:
            self._write_line(self._env_steps, None)

    def pause(self) -> None:
        """Leave the last state on the screen, and close the tables until more is to be told."""
        self.view.close()
        for table in (self.progress, self.evaluations, self.timing):
            table.close()

    def close(self) -> None:
        """Flush everything."""
        self.pause()
        self.board.close()

    def _write_line(self, env_steps: int, fragment: Batch | None) -> None:
        learner = self.learner
        returns = [episode.value for episode in self._episodes]
        lengths = [episode.length for episode in self._episodes]
        line: dict[str, float | int | None] = {
            "episode/return": fmean(returns) if returns else None,
            "episode/length": fmean(lengths) if lengths else None,
        }
        line |= learner.checked(self.means.take())
        rates = learner.learning_rates(env_steps)
        line |= {f"learning_rate/{name}": rate for name, rate in rates.items()}
        scalars = learner.agent.monitor(env_steps)
        line |= {f"exploration/{name}": value for name, value in scalars.items()}
        line |= {f"memory/{name}": value for name, value in self.memory.monitor().items()}
        counts = {
            "env_steps": env_steps,
            "updates": learner.version,
            "episodes": self._episode_count,
        }
        if self._dropped:
            counts["dropped_episodes"] = self._dropped
        self.progress.add({**counts, **line})
        timing = self._spent.take(env_steps, learner.version)
        standing = self.source.standing()
        if standing is not None:
            timing |= standing.scalars()
            self.view.workers(standing)
            if standing.advice != self._advice:
                self._advice = standing.advice
                self.board.text("advice", standing.advice, env_steps)
        self.timing.add({"env_steps": env_steps, **timing})
        self.board.scalars({**line, **timing}, env_steps)
        if self.histograms and fragment is not None:
            self.board.histograms(fragment.action, learner.agent.policy, env_steps)
        self.view.update(env_steps, line["episode/return"])
        self._episodes = []


def _extent(saved: Sequence[Any]) -> tuple[list[str], int, list[int] | None]:
    columns, rows, *checksums = saved
    return columns, rows, checksums[0] if checksums else None
