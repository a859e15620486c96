"""Trains for long while actors are killed at random, and checks that nothing comes of it.

An asynchronous training is started from the command line. Every few seconds one of its actors is
killed (SIGKILL); at the end the run is interrupted as Ctrl-C does it. Checked are the exit status,
the checkpoint, that no process and nothing in shared memory is left behind, that the memory of the
main process stays flat, and that environment steps were taken between all kills.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic, sleep

import psutil
from rich.console import Console
from rich.table import Table

PATIENCE = 120.0  # seconds; generous, for nothing that it is used for is about speed
GROWTH = 1.05  # of the main process's memory, from the first quarter to the last
_SHARED = Path("/dev/shm")


def main() -> int:
    """Soak; 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="how long")
    parser.add_argument("--kill-every", type=float, default=10.0, help="seconds between two kills")
    parser.add_argument("--settle", type=float, default=30.0, help="seconds before the first")
    parser.add_argument("--workers", type=int, default=2, help="actors")
    parser.add_argument("--seed", type=int, default=1, help="of whom to kill")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    segments = shared_segments()
    with tempfile.TemporaryDirectory() as folder:
        changes = {
            "run.envs": 2 * options.workers,
            "run.max_restarts": 10**6,
            "run.fragment_length": 16,
            "run.log_every": 500,
            "memory.capacity": 5_000,  # full before the first sample
            "evaluation.every": 50_000,
            "evaluation.episodes": 2,
        }
        run = Training("CartPole_DQN", options.workers, Path(folder), changes)
        try:
            run.await_actors()
            sleep(options.settle)
            samples = _kill_and_watch(run, 60 * options.minutes, options.kill_every, rng)
            status = run.interrupt()
            checks = _checks(run, status, samples, segments)
        finally:
            run.end()
    _show(checks, samples)
    return 0 if all(passed for _, passed, _ in checks) else 1


class Training:
    """An asynchronous `coach train` without end, watched from outside.

    It and all processes that it starts form a session.

    Args:
        preset: name of the preset.
        workers: actor processes.
        folder: for the run's folder and what it prints.
        changes: settings by key path.
    """

    def __init__(self, preset: str, workers: int, folder: Path, changes: dict[str, object]) -> None:
        self.workers, self.folder, self.output = workers, folder, folder / "output.txt"
        command = [sys.executable, "-m", "coach_cli", "train", preset, "--quiet"]
        command += ["--mode", "async", "--worker-kind", "process", "--workers", str(workers)]
        command += ["--steps", str(10**9), "--run-dir", str(folder)]
        command += [part for key in changes for part in ("--set", f"{key}={changes[key]}")]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.main = psutil.Process(self.process.pid)

    @property
    def told(self) -> str:
        """What it has printed."""
        return self.output.read_text()

    @property
    def env_steps(self) -> int:
        """Environment steps, as of the last line of its log."""
        last = deque(self._lines("progress.csv"), maxlen=1)
        return int(last[0]["env_steps"]) if last else 0

    def actors(self) -> list[psutil.Process]:
        """Its worker processes: they are started by a server, which is its child."""
        servers = self.main.children()
        others = [one for one in self.main.children(recursive=True) if one not in servers]
        return [one for one in others if one.status() != psutil.STATUS_ZOMBIE]

    def await_actors(self) -> None:
        """Wait until each of them has delivered, as the log says."""
        awaited = {f"worker_{number}/env_steps_per_s" for number in range(self.workers)}

        def delivered() -> bool:
            for line in self._lines("timing.csv"):
                awaited.difference_update([name for name in awaited if float(line[name]) > 0])
            return not awaited

        self.await_that(delivered, f"{self.workers} actors to deliver")

    def await_that(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so; ends this program if it is not to be."""
        begin = monotonic()
        while not condition():
            if self.process.poll() is not None:
                raise SystemExit(f"The training ended early:\n{self.told}")
            if monotonic() - begin > PATIENCE:
                raise SystemExit(f"Waited in vain for {what}:\n{self.told}")
            sleep(0.05)

    def interrupt(self) -> int:
        """Send SIGINT to all of the session, as a terminal does; the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE)

    def left_over(self) -> list[int]:
        """Processes of the session that are still there a while after it has ended."""
        begin = monotonic()
        while (left := self._session()) and monotonic() - begin < 10.0:
            sleep(0.1)
        return left

    def end(self) -> None:
        """Kill whatever is left of it."""
        for pid in self._session():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _session(self) -> list[int]:
        found = []
        for pid in psutil.pids():
            try:
                mine = os.getsid(pid) == self.process.pid
                if mine and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    found.append(pid)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def _lines(self, name: str) -> Iterator[dict[str, str]]:
        """Lines of a file of the run that are whole; none while there is no run."""
        for path in self.folder.glob(f"*/*/{name}"):
            with path.open(newline="", encoding="utf-8") as file:
                yield from csv.DictReader(line for line in file if line.endswith("\n"))


def shared_segments() -> set[str]:
    """Names in shared memory."""
    return set(os.listdir(_SHARED)) if _SHARED.is_dir() else set()


def orphans(before: set[str]) -> list[str]:
    """Names that are new in shared memory, without those that other programs are using."""
    new, used = shared_segments() - before, ""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # it has ended, or is somebody else's
            used += maps.read_text()
    return sorted(name for name in new if f"{_SHARED}/{name}" not in used)


@dataclass(frozen=True)
class _Sample:
    """What was seen at one moment.

    Args:
        seconds: since the beginning.
        env_steps: taken by the run.
        memory_mib: resident set of the main process.
        kills: actors killed by then.
    """

    seconds: float
    env_steps: int
    memory_mib: float
    kills: int


def _kill_and_watch(
    run: Training, seconds: float, every: float, rng: random.Random
) -> list[_Sample]:
    begin, kills, samples = monotonic(), 0, []
    while True:
        spent = monotonic() - begin
        if run.process.poll() is not None:
            raise SystemExit(f"The training ended early:\n{run.told}")
        memory = run.main.memory_info().rss / 2**20
        samples.append(_Sample(spent, run.env_steps, memory, kills))
        if spent >= seconds:
            return samples
        actors = run.actors()
        if actors:
            rng.choice(actors).kill()
            kills += 1
        sleep(every)


def _checks(
    run: Training, status: int, samples: list[_Sample], segments: set[str]
) -> list[tuple[str, bool, str]]:
    kills, restarts = samples[-1].kills, run.told.count("failed and is restarted")
    checkpoints = [path.name for path in run.folder.glob("*/*/checkpoints/step-*")]
    left, shared = run.left_over(), orphans(segments)
    grown = [after.env_steps - before.env_steps for before, after in pairwise(samples)]
    quarter = max(len(samples) // 4, 1)
    first = median(sample.memory_mib for sample in samples[:quarter])
    last = median(sample.memory_mib for sample in samples[-quarter:])
    return [
        ("exit status is 130", status == 130, str(status)),
        ("kills led to restarts", kills == restarts > 0, f"{kills} kills, {restarts} restarts"),
        ("no traceback", "Traceback" not in run.told, ""),
        ("a checkpoint was written", bool(checkpoints), ", ".join(sorted(checkpoints))),
        ("no process left", not left, ", ".join(map(str, left))),
        ("shared memory as before", not shared, ", ".join(shared)),
        ("steps between all samples", min(grown) > 0, f"{min(grown):,} to {max(grown):,}"),
        ("memory is flat", last <= GROWTH * first, f"{first:.0f} MiB, then {last:.0f} MiB"),
    ]


def _show(checks: list[tuple[str, bool, str]], samples: list[_Sample]) -> None:
    end = samples[-1]
    steps = end.env_steps - samples[0].env_steps
    title = f"{end.seconds / 60:.1f} minutes, {steps / end.seconds:,.0f} env steps/s"
    table = Table("check", "", "found", title=title, title_justify="left")
    for name, passed, found in checks:
        table.add_row(name, "[green]ok[/green]" if passed else "[red]failed[/red]", found)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
