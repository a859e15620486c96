"""Trains the seeds of a verification, one after another or in processes, and reports on them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import yaml
from coach.core.errors import CoachError, FailedEnvironmentError
from coach.core.registry import load_plugin
from coach.runners import folder as run_folder
from coach.runners.changes import changes_between
from coach.runners.checkpoint import checkpoints, has_policy, load_policy
from coach.runners.clock import Clock
from coach.runners.experiment import build_experiment
from coach.runners.interrupts import ended_by_signals
from coach.runners.preset import dump
from coach.runners.training import Run, carry_through, resume, start
from coach.runners.worker import WorkerError
from coach.telemetry.console import Listener, RunProgress
from coach.telemetry.verification import VerificationView
from rich.console import Console

_POLL_SECONDS = 0.5


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
class Request:
    """What to train for one seed.

    Args:
        name: of the preset.
        settings: of the run, its seed included.
        root: where run folders are made.
        plugins: to import first.
        resuming: go on with a run that had the same settings, if there is one.
    """

    name: str
    settings: dict[str, Any]
    root: Path
    plugins: list[str]
    resuming: bool

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.settings["run"]["seed"])


@dataclass(frozen=True)
class _Failure:
    """An error of a job on its way to the process that waits for it."""

    problem: str
    remedy: str
    stopped: str
    exit_status: int


class InterruptedTrialError(CoachError):
    """A signal ended a run before it was finished; ``stopped`` says which."""

    def __init__(self, problem: str, stopped: str) -> None:
        super().__init__(problem, "Add --resume to go on where it stopped.")
        self.stopped = stopped


def run_one_by_one(requests: list[Request], view: VerificationView) -> list[Trial]:
    """Train each seed in this process.

    Raises:
        InterruptedTrialError: a signal ended a run.
    """
    trials = []
    for request in requests:
        trial = _run(request, view.console, partial(view.progress, request.seed))
        _show(view, trial)
        trials.append(trial)
    return trials


def run_side_by_side(requests: list[Request], view: VerificationView, jobs: int) -> list[Trial]:
    """Train up to ``jobs`` seeds at a time, each in a process of its own.

    Raises:
        InterruptedTrialError: a signal came; the runs have written their checkpoints.
        CoachError: what ended a run, or a process that died.
    """
    waiting, running = list(requests), dict[Connection, tuple[Request, SpawnProcess]]()
    trials: dict[int, Trial] = {}
    clock = Clock(limit=1)  # notes the signal
    try:
        with ended_by_signals(clock):
            while waiting or running:
                if clock.interrupted:
                    _end(running)
                    raise InterruptedTrialError(
                        f"The verification was {clock.stop}; {len(trials)} of {len(requests)} "
                        "seeds were done.",
                        clock.stop,
                    )
                while waiting and len(running) < jobs:
                    request = waiting.pop(0)
                    connection, process = _start(request)
                    running[connection] = request, process
                for ready in wait(list(running), _POLL_SECONDS):
                    assert isinstance(ready, Connection)
                    request, process = running[ready]
                    done = _receive(ready, request, process, view)
                    if done is not None:
                        del running[ready]
                        process.join()
                        trials[request.seed] = done
                        _show(view, done)
    except BaseException:
        _end(running)
        raise
    return [trials[request.seed] for request in requests]


def _start(request: Request) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_job, args=(request, theirs))
    with _ignored(signal.SIGINT):  # inherited: Ctrl-C ends this process, which then ends the job
        process.start()
    theirs.close()
    return mine, process


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def _receive(
    connection: Connection, request: Request, process: SpawnProcess, view: VerificationView
) -> Trial | None:
    try:
        message = connection.recv()
    except (EOFError, OSError):
        process.join()
        raise CoachError(
            f"The process that trained seed {request.seed} ended with exit status "
            f"{process.exitcode} before it had a result.",
            "Its own output says more; --resume goes on from the last checkpoints.",
        ) from None
    match message:
        case Trial():
            return message
        case RunProgress():
            view.progress(request.seed, message)
        case str():
            view.say(request.seed, message)
        case _Failure(problem, remedy, stopped, exit_status):
            if stopped:
                raise InterruptedTrialError(problem, stopped)
            kinds = {kind.exit_status: kind for kind in (FailedEnvironmentError, WorkerError)}
            raise kinds.get(exit_status, CoachError)(f"Seed {request.seed}: {problem}", remedy)
    return None


def _show(view: VerificationView, trial: Trial) -> None:
    view.finished(trial.seed, trial.kept, trial.last, trial.env_steps, trial.seconds)


def _end(running: dict[Connection, tuple[Request, SpawnProcess]]) -> None:
    """Let all jobs write a checkpoint and end."""
    processes = [process for _, process in running.values()]
    running.clear()
    for process in processes:
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
    for process in processes:
        process.join()


def _job(request: Request, connection: Connection) -> None:
    """A trial in a process of its own, whose output goes through a pipe."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # the terminal's Ctrl-C is for the process that waits for this one
    _end_with_parent()
    pipe = _Pipe(connection)
    try:
        pipe.send(_run(request, pipe, pipe.send))
    except CoachError as error:
        pipe.send(
            _Failure(error.problem, error.remedy, getattr(error, "stopped", ""), error.exit_status)
        )
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # nobody waits for the outcome


class _Pipe(Console):
    """Hands progress, and what is printed as plain text, to the process that waits."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(force_terminal=False, soft_wrap=True)
        self.connection, self.sending = connection, threading.Lock()

    def send(self, message: Any) -> None:
        """Send a message; without a process that waits, do nothing, as the run is ending."""
        with self.sending, suppress(OSError):
            self.connection.send(message)

    def print(self, *objects: Any, **style: Any) -> None:
        with self.capture() as captured:
            super().print(*objects, **style)
        self.send(captured.get().rstrip("\n"))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone; a run writes a checkpoint first."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _run(request: Request, console: Console, report: Callable[[RunProgress], None]) -> Trial:
    """Train one seed and judge its kept and its last policy in the same fresh episodes."""
    for plugin in request.plugins:
        load_plugin(plugin)
    seed, episodes = request.seed, request.settings["target"].get("episodes", 20)
    run = _begin(request, console, report)
    report(RunProgress(run.clock.env_steps))
    run, result = carry_through(run, request.plugins)
    if result.stopped.startswith("interrupted"):
        raise InterruptedTrialError(
            f"Seed {seed} was {result.stopped} after {result.env_steps:,} steps.", result.stopped
        )
    last = [episode.value for episode in run.evaluate(episodes, "verification")]
    kept = last
    if has_policy(result.folder / "best"):
        weights, _ = load_policy(result.folder / "best")
        kept = [episode.value for episode in run.evaluate(episodes, "verification", weights)]
    return Trial(seed, kept, last, result.env_steps, result.seconds, result.folder)


def _begin(request: Request, console: Console, listener: Listener) -> Run:
    name, settings, root, plugins = request.name, request.settings, request.root, request.plugins
    folder = _earlier(name, settings, root, plugins) if request.resuming else None
    if folder is not None:
        return resume(folder, settings, console, plugins, quiet=True, listener=listener)
    return start(name, settings, root, console, plugins, quiet=True, listener=listener)


def _earlier(name: str, settings: dict[str, Any], root: Path, plugins: list[str]) -> Path | None:
    """The newest run of a seed with the same settings that has a checkpoint to go on from."""
    wanted, seed = _resolved(settings, plugins), settings["run"]["seed"]
    for folder in reversed(run_folder.runs_of(root, name, seed)):
        if checkpoints(folder):
            found = run_folder.read(folder).settings  # compared, never built: it may be anybody's
            changes = changes_between(found, wanted, settings)
            if all(change.key.split(".")[0] in ("about", "target") for change in changes):
                return folder
    return None


def _resolved(settings: dict[str, Any], plugins: list[str]) -> dict[str, Any]:
    """All settings, defaults included."""
    experiment = build_experiment(settings, plugins)
    experiment.source.close()
    resolved: dict[str, Any] = yaml.safe_load(dump(experiment.plain))
    return resolved
