"""Training a preset for several seeds and holding the result against its pass mark."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from coach.core.errors import CoachError, SettingError
from coach.core.registry import load_plugin
from coach.runners import folder as run_folder
from coach.runners.checkpoint import checkpoints, load_policy
from coach.runners.experiment import build_experiment
from coach.runners.preset import dump
from coach.runners.training import carry_through, resume, start
from coach.telemetry.console import number
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Trial:
    """One seed's outcome.

    Args:
        seed: of the run.
        kept: returns of the kept (best evaluated) policy in fresh episodes.
        last: returns of the policy as it was at the end, in the same episodes.
        env_steps: environment steps taken.
        seconds: wall time of training.
        folder: the run's folder.
    """

    seed: int
    kept: list[float]
    last: list[float]
    env_steps: int
    seconds: float
    folder: Path


@dataclass(frozen=True)
class Verdict:
    """All trials of a preset and its pass mark."""

    preset: str
    target: float
    trials: list[Trial]

    @property
    def means(self) -> list[float]:
        """Mean return of each seed's kept policy."""
        return [float(np.mean(trial.kept)) for trial in self.trials]

    @property
    def passed(self) -> bool:
        """Whether the mean over the seeds reaches the pass mark."""
        return float(np.mean(self.means)) >= self.target


def verify(
    name: str,
    settings: dict[str, Any],
    root: Path,
    seeds: int | None,
    jobs: int = 1,
    plugins: list[str] | None = None,
    resuming: bool = False,
) -> Verdict:
    """Train ``seeds`` seeds within the target's steps and judge the kept policies.

    The policy that did best in the run's own evaluations is kept; it is judged in episodes that
    it has not been selected on. With ``resuming``, runs under ``root`` that had the same settings
    are gone on with, or judged as they are if they are finished.

    Raises:
        SettingError: the preset has no target.
        CoachError: a signal ended a run before it was finished.
    """
    target = settings.get("target")
    if not isinstance(target, dict) or "return" not in target:
        raise SettingError(
            "target",
            f"{name} has no pass mark to verify",
            "Add `target: {return: ..., within_steps: ...}` to the preset.",
        )
    first = settings["run"].get("seed", 1)
    count = seeds or target.get("seeds", 3)
    arguments = []
    for seed in range(first, first + count):
        changed = copy.deepcopy(settings)
        changed["run"]["seed"] = seed
        changed["run"]["steps"] = target.get("within_steps") or changed["run"]["steps"]
        arguments.append((name, changed, root, plugins or [], resuming))
    if jobs == 1:
        trials = [_trial(*argument) for argument in arguments]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
            trials = list(pool.map(_job, *zip(*arguments)))
    return Verdict(name, float(target["return"]), trials)


def record(verdict: Verdict, settings: dict[str, Any], path: Path) -> None:
    """Add what was found to a JSON file, which docs/results.md is made from.

    An older entry of the same preset is replaced.
    """
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    returns = [trial.kept for trial in verdict.trials]
    low, high = interval(returns)
    entries[verdict.preset] = {
        "about": settings.get("about"),
        "agent": settings["agent"]["type"] if isinstance(settings["agent"], dict) else None,
        "environment": settings["environment"]["id"],
        "env_steps": max(trial.env_steps for trial in verdict.trials),
        "target": verdict.target,
        "means": [round(mean, 3) for mean in verdict.means],
        "last": [round(float(np.mean(trial.last)), 3) for trial in verdict.trials],
        "interquartile_mean": round(interquartile_mean(np.concatenate(returns)), 3),
        "interval": [round(low, 3), round(high, 3)],
        "seconds": round(float(np.mean([trial.seconds for trial in verdict.trials])), 1),
        "published": settings["target"].get("published"),
    }
    written = json.dumps(dict(sorted(entries.items())), indent=1)
    path.write_text(f"{written}\n", encoding="utf-8")


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print a row per seed and the summary."""
    table = Table(title=f"{verdict.preset}: target {verdict.target:g}", title_justify="left")
    for column in ("seed", "kept policy", "last policy", "env steps", "wall time"):
        table.add_column(column, justify="right")
    for trial, mean in zip(verdict.trials, verdict.means):
        table.add_row(
            str(trial.seed),
            f"{number(mean)} ± {number(float(np.std(trial.kept)))}",
            f"{number(float(np.mean(trial.last)))} ± {number(float(np.std(trial.last)))}",
            f"{trial.env_steps:,}",
            f"{trial.seconds:.1f} s",
        )
    console.print(table)
    means = verdict.means
    pooled = np.concatenate([trial.kept for trial in verdict.trials])
    console.print(
        f"mean {number(float(np.mean(means)))}   "
        f"interquartile mean {number(interquartile_mean(pooled))}   "
        f"spread over seeds {number(float(np.std(means)))}   "
        f"wall time {sum(trial.seconds for trial in verdict.trials):.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    style, word = ("green", "PASSED") if verdict.passed else ("red", "FAILED")
    console.print(f"[{style}]{word}[/{style}] (mean over seeds against {verdict.target:g})")


def interquartile_mean(values: Any) -> float:
    """Mean of the middle half (arXiv:2108.13264), here over the episodes of all seeds."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def interval(
    returns: list[list[float]], confidence: float = 0.95, draws: int = 2_000
) -> tuple[float, float]:
    """Bootstrap interval of the interquartile mean (arXiv:2108.13264, section 4.1).

    Seeds are drawn with replacement, and episodes within each.

    Args:
        returns: of each seed's episodes.
        confidence: of the interval.
        draws: of the bootstrap.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        seeds = rng.integers(len(returns), size=len(returns))
        drawn = [rng.choice(returns[seed], len(returns[seed])) for seed in seeds]
        found.append(interquartile_mean(np.concatenate(drawn)))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone; a run that goes on ends as usual."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _job(*arguments: Any) -> Trial:
    """A trial in a process of its own."""
    try:
        return _trial(*arguments)
    finally:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)  # nobody waits for what was found, or says that there is no more to do


def _trial(
    name: str, settings: dict[str, Any], root: Path, plugins: list[str], resuming: bool
) -> Trial:
    for plugin in plugins:
        load_plugin(plugin)
    seed, episodes = settings["run"]["seed"], settings["target"].get("episodes", 20)
    folder = _earlier(name, settings, root, plugins) if resuming else None
    run = (
        start(name, settings, root, Console(), plugins, quiet=True)
        if folder is None
        else resume(folder, settings, Console(), plugins, quiet=True)
    )
    run, result = carry_through(run, plugins)
    if result.stopped.startswith("interrupted"):
        raise CoachError(
            f"Seed {seed} was {result.stopped} after {result.env_steps:,} steps.",
            "Add --resume to go on where it stopped.",
        )
    last = [episode.value for episode in run.evaluate(episodes, "verification")]
    kept = last
    if (result.folder / "best").is_dir():
        weights, _ = load_policy(result.folder / "best")
        run.experiment.agent.load_state_dict(weights)
        kept = [episode.value for episode in run.evaluate(episodes, "verification")]
    return Trial(seed, kept, last, result.env_steps, result.seconds, result.folder)


def _earlier(name: str, settings: dict[str, Any], root: Path, plugins: list[str]) -> Path | None:
    """The newest run of a seed with the same settings that has a checkpoint to go on from."""
    wanted, seed = _what_runs(settings, plugins), settings["run"]["seed"]
    for folder in sorted((root / name).glob(f"*-seed{seed}*"), reverse=True):
        if run_folder.is_run(folder) and checkpoints(folder):
            found, _ = run_folder.read(folder)
            if _what_runs(found, plugins) == wanted:
                return folder
    return None


def _what_runs(settings: dict[str, Any], plugins: list[str]) -> dict[str, Any] | None:
    """All settings but what a run is judged by afterwards; ``None`` if they are none any more."""
    try:
        experiment = build_experiment(settings, plugins)
    except SettingError:  # of a version before that had other ones
        return None
    experiment.source.close()
    resolved: dict[str, Any] = yaml.safe_load(dump(experiment.plain))
    return {key: value for key, value in resolved.items() if key not in ("about", "target")}
