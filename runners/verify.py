"""Training a preset for several seeds and comparing it with its pass mark."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coach.core.errors import CoachError, SettingError
from coach.runners.trials import Request, Trial, run_one_by_one, run_side_by_side
from coach.telemetry.console import number
from coach.telemetry.verification import VerificationView
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Share of the seeds whose last policy has to reach the target.
LAST_SHARE = 0.9


@dataclass(frozen=True)
class Verdict:
    """All trials of a preset and its pass mark."""

    preset: str
    target: float
    trials: list[Trial]

    @property
    def kept(self) -> list[float]:
        """Mean return of each seed's kept policy."""
        return [float(np.mean(trial.kept)) for trial in self.trials]

    @property
    def last(self) -> list[float]:
        """Mean return of each seed's last policy."""
        return [float(np.mean(trial.last)) for trial in self.trials]

    def reached(self, means: list[float]) -> int:
        """How many seeds reach the target."""
        return sum(mean >= self.target for mean in means)

    @property
    def kept_passed(self) -> bool:
        """Whether the mean over the seeds' kept policies reaches the target."""
        return float(np.mean(self.kept)) >= self.target

    @property
    def last_passed(self) -> bool:
        """Whether the last policies of at least 9 in 10 seeds reach the target."""
        return self.reached(self.last) >= LAST_SHARE * len(self.trials)

    @property
    def passed(self) -> bool:
        """Whether both the kept and the last policies pass."""
        return self.kept_passed and self.last_passed


def verify(
    name: str,
    settings: dict[str, Any],
    root: Path,
    seeds: int | None,
    jobs: int = 1,
    plugins: list[str] | None = None,
    resuming: bool = False,
    first_seed: int | None = None,
    console: Console | None = None,
) -> Verdict:
    """Train ``seeds`` seeds within the target's steps and judge what came of them.

    Each run keeps the policy that did best in its own evaluations. This one and the policy at the
    end of the run are both judged, in the same episodes, which neither was selected on.

    Args:
        name: of the preset.
        settings: its plain settings.
        root: where run folders are made.
        seeds: how many; left out, what the target says.
        jobs: seeds trained at the same time, each in a process of its own.
        plugins: imported by these processes.
        resuming: go on with runs under ``root`` that had the same settings; those that are finished
            are judged as they are.
        first_seed: the seeds follow from it; left out, the preset's own.
        console: where progress is shown; left out, nowhere.

    Raises:
        SettingError: the preset has no target.
        InterruptedTrialError: a signal ended a run before it was finished.
        CoachError: a run failed.
    """
    target = settings.get("target")
    if not isinstance(target, dict) or "return" not in target:
        raise SettingError(
            "target",
            f"{name} has no pass mark to verify",
            "Add `target: {return: ..., within_steps: ...}` to the preset.",
        )
    first = settings["run"].get("seed", 1) if first_seed is None else first_seed
    count = seeds or target.get("seeds", 3)
    steps = target.get("within_steps") or settings["run"]["steps"]
    requests = []
    root = root.absolute()  # an environment may change the working directory
    for seed in range(first, first + count):
        changed = copy.deepcopy(settings)
        changed["run"]["seed"] = seed
        changed["run"]["steps"] = steps
        requests.append(Request(name, changed, root, plugins or [], resuming))
    shown = console if console is not None else Console(quiet=True)
    with VerificationView(shown, [request.seed for request in requests], steps, jobs) as view:
        if jobs == 1:
            trials = run_one_by_one(requests, view)
        else:
            trials = run_side_by_side(requests, view, jobs)
    return Verdict(name, float(target["return"]), trials)


def read_records(path: Path) -> dict[str, Any]:
    """The results in a JSON file; none if it is not there yet.

    Raises:
        CoachError: the file holds something else, or its folder is missing.
    """
    if not path.parent.is_dir():
        raise CoachError(f"--record: there is no folder {path.parent}.", "Create it first.")
    try:
        entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CoachError(
            f"--record: {path} cannot be read: {error}", "Name another file, or remove it."
        ) from error
    if not isinstance(entries, dict):
        raise CoachError(f"--record: {path} holds no results.", "Name another file.")
    return entries


def record(verdict: Verdict, settings: dict[str, Any], path: Path) -> None:
    """Add what was found to a JSON file, which docs/results.md is made from.

    An older entry of the same preset is replaced.
    """
    entries = read_records(path)
    entries[verdict.preset] = {
        "about": settings.get("about"),
        "agent": settings["agent"]["type"] if isinstance(settings["agent"], dict) else None,
        "environment": settings["environment"]["id"],
        "env_steps": max(trial.env_steps for trial in verdict.trials),
        "target": verdict.target,
        "seeds": [trial.seed for trial in verdict.trials],
        "episodes": len(verdict.trials[0].last),
        "kept": _summary(verdict.kept, verdict.kept_passed),
        "last": _summary(verdict.last, verdict.last_passed),
        "seconds": round(float(np.mean([trial.seconds for trial in verdict.trials])), 1),
        "published": settings["target"].get("published"),
    }
    written = json.dumps(dict(sorted(entries.items())), indent=1)
    path.write_text(f"{written}\n", encoding="utf-8")


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print a row per seed and a summary of the kept and of the last policies."""
    table = Table(
        title=escape(f"{verdict.preset}: target {verdict.target:g}"), title_justify="left"
    )
    for column in ("seed", "kept policy", "last policy", "env steps", "wall time"):
        table.add_column(column, justify="right")
    for trial in verdict.trials:
        table.add_row(
            str(trial.seed),
            *(
                f"{number(float(np.mean(returns)))} ± {number(float(np.std(returns)))}"
                for returns in (trial.kept, trial.last)
            ),
            f"{trial.env_steps:,}",
            f"{trial.seconds:.1f} s",
        )
    console.print(table)
    summary = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "mean", "lowest", "IQM over seeds (95 %)", "reach the target", ""):
        summary.add_column(column, justify="left" if not column else "right")
    for word, means, passed in (
        ("kept", verdict.kept, verdict.kept_passed),
        ("last", verdict.last, verdict.last_passed),
    ):
        low, high = interval(means)
        summary.add_row(
            word,
            number(float(np.mean(means))),
            number(min(means)),
            f"{number(interquartile_mean(means))} ({number(low)} to {number(high)})",
            f"{verdict.reached(means)} of {len(means)}",
            "[green]passed[/green]" if passed else "[red]failed[/red]",
        )
    console.print(summary)
    style, word = ("green", "PASSED") if verdict.passed else ("red", "FAILED")
    console.print(
        f"[{style}]{word}[/{style}] (kept policies: the mean reaches {verdict.target:g}; last "
        "policies: at least 9 in 10 seeds do)",
        highlight=False,
        soft_wrap=True,
    )


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half (arXiv:2108.13264, section 4.3)."""
    return float(_trimmed(np.asarray(values, dtype=np.float64)))


def interval(
    means: list[float], confidence: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the interquartile mean (arXiv:2108.13264, section 4.1).

    Runs are drawn with replacement: a run is one observation, whatever its number of episodes.

    Args:
        means: one per run.
        confidence: of the interval.
        draws: of the bootstrap.
    """
    values = np.asarray(means, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    found = _trimmed(values[chosen])
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _trimmed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means along the last axis without its lowest and highest quarters, rounded down."""
    cut = values.shape[-1] // 4
    middle = np.sort(values, -1)[..., cut : values.shape[-1] - cut]
    return np.asarray(middle.mean(-1))


def _summary(means: list[float], passed: bool) -> dict[str, Any]:
    low, high = interval(means)
    return {
        "means": [round(mean, 3) for mean in means],
        "interquartile_mean": round(interquartile_mean(means), 3),
        "interval": [round(low, 3), round(high, 3)],
        "passed": passed,
    }
