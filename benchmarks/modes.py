"""How fast the modes `sync` and `async` step environments, compared with `single`.

- waiting: a step waits 2 ms, as for an external simulator; 2 and 8 workers over `single`.
- computing: a step computes for 2 ms in Python; 2 workers over what two copies of `single` with
  half of the environments each reach together, side by side in the same seconds.
- cartpole: steps are so cheap that workers cannot pay; what `auto` says to it.

All runs have 8 environments and a small DQN agent that hardly learns. Each run is a process of its
own and is measured for a few seconds from when all of its environments have delivered. Runs of a
round follow each other, and ratios are formed within a round: machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table
from worlds import Computing, Waiting, named, work_of

ENVS = 8
STEP_SECONDS = 0.002


@dataclass(frozen=True)
class Case:
    """One way to run a part.

    Args:
        run: settings under ``run``.
        copies: how many such runs go side by side.
        bar: least ratio to the first case of the part.
    """

    name: str
    run: dict[str, Any]
    copies: int = 1
    bar: float | None = None


def _case(mode: str, workers: int, bar: float, kind: str = "auto") -> Case:
    run = {"mode": mode, "workers": workers, "worker_kind": kind}
    return Case(f"{mode} {workers}, {kind}", run, bar=bar)


PARTS = {
    "waiting": [
        Case("single", {}),
        _case("sync", 2, 1.8),
        _case("async", 2, 1.8),
        _case("sync", 8, 6.0),
        _case("async", 8, 6.0),
    ],
    "computing": [
        Case("single and single", {"envs": ENVS // 2}, copies=2),
        _case("sync", 2, 0.85),
        _case("async", 2, 0.85),
    ],
    "cartpole": [
        Case("single", {}),
        _case("sync", 2, 0.8),
        _case("sync", 2, 0.8, "process"),
    ],
}


def main() -> None:
    """Measure the chosen parts and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help="waiting, computing, cartpole; all if left out")
    parser.add_argument("--rounds", type=int, default=5, help="how often every case is run")
    parser.add_argument("--seconds", type=float, default=5.0, help="that a run is measured for")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(**json.loads(options.measure))))
        return
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; known: {', '.join(PARTS)}")
    worlds: dict[str, dict[str, Any]] = {
        "waiting": {"id": named(Waiting), "kwargs": {"seconds": STEP_SECONDS}},
        "computing": {"id": named(Computing), "kwargs": {"work": work_of(STEP_SECONDS)}},
        "cartpole": {"id": "CartPole-v1"},
    }
    for part in options.parts or PARTS:
        _compare(part, worlds[part], options.rounds, options.seconds)


def settings_of(environment: dict[str, Any], **run: Any) -> dict[str, Any]:
    """A preset in which acting and learning cost little."""
    network = {"embedder": {"type": "mlp", "hidden": [32]}, "heads": {"q": "q"}}
    return {
        "environment": environment,
        "agent": {"type": "dqn", "network": network},
        "memory": {"type": "replay", "capacity": 10_000, "warmup": 64, "updates_per_step": 0.01},
        "run": {"steps": 10**9, "envs": ENVS, "fragment_length": 16, "log_every": 1_000, **run},
        "evaluation": {"every": 0},
    }


def _compare(part: str, environment: dict[str, Any], rounds: int, seconds: float) -> None:
    cases = PARTS[part]
    speeds: list[list[float]] = [[] for _ in cases]
    notes = [""] * len(cases)
    for _ in range(rounds):
        for number, case in enumerate(cases):
            told = _run(case, settings_of(environment, **case.run), seconds)
            speeds[number].append(sum(one["speed"] for one in told))
            notes[number] = told[0]["note"]
    table = Table(title=f"{part}: {rounds} rounds of {seconds:g} s", title_justify="left")
    table.add_column("")
    for column in ("env steps/s", "ratio", "range", "bar"):
        table.add_column(column, justify="right")
    for case, of_case in zip(cases, speeds):
        ratios = [one / first for one, first in zip(of_case, speeds[0])]
        table.add_row(
            case.name,
            f"{median(of_case):,.0f}",
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            _verdict(median(ratios), case.bar, notes[cases.index(case)]),
        )
    console = Console()
    console.print(table)
    for case, note in zip(cases, notes):
        if note:
            console.print(f"{case.name}: {note}", highlight=False, soft_wrap=True)
    console.print()


def _verdict(ratio: float, bar: float | None, note: str) -> str:
    if bar is None:
        return ""
    if "stay in this thread" in note:
        return "in one thread"
    return f"{bar:g} {'met' if ratio >= bar else 'missed'}"


def _run(case: Case, settings: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Run the copies of a case side by side; what each told."""
    asked = {"settings": settings, "seconds": seconds, "waits": case.copies > 1}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--measure", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(case.copies)
    ]
    if case.copies > 1:
        for process in processes:
            assert process.stdout is not None
            if not process.stdout.readline():  # says that it is warm
                raise SystemExit(f"{case.name} failed")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{case.name} failed")
    return [json.loads(output.strip().splitlines()[-1]) for output in outputs]


def _measure(settings: dict[str, Any], seconds: float, waits: bool) -> dict[str, Any]:
    """Train for some seconds; with ``waits``, say when warm, and measure when told to."""
    # Here, because worker processes import this file, and need none of it.
    from coach.runners.loop import train
    from coach.runners.training import start

    with tempfile.TemporaryDirectory() as folder:
        run = start("modes", settings, Path(folder), Console(stderr=True), [], quiet=True)
        experiment = run.experiment
        watch = Stopwatch(experiment.source, experiment.run.envs, run.clock, seconds, waits)
        try:
            train(watch, experiment.memory, experiment.learner, run.clock, run.log, lambda: None)
        finally:
            experiment.source.close()
            run.log.close()
    return {"speed": watch.speed, "note": experiment.note}


class Stopwatch:
    """A source that counts the steps of another, and ends the run when its speed is known.

    Args:
        source: delivers the fragments.
        envs: number of environments.
        clock: of the run.
        seconds: to measure for, from when every environment has delivered three fragments.
        waits: say when that is so, and wait for a line before the measurement begins.
    """

    def __init__(self, source: Any, envs: int, clock: Any, seconds: float, waits: bool) -> None:
        self.source, self.envs, self.clock = source, envs, clock
        self.seconds, self.waits = seconds, waits
        self.speed = 0.0
        self._delivered: Counter[int] = Counter()
        self._begin = 0.0
        self._steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def collect(self) -> Any:
        """A fragment of the source."""
        batch = self.source.collect()
        if self._begin:
            self._steps += batch.steps
            spent = perf_counter() - self._begin
            if spent >= self.seconds:
                self.speed = self._steps / spent
                self.clock.stop = "measured"
            return batch
        self._delivered.update(batch.env_ids.tolist())
        if len(self._delivered) == self.envs and min(self._delivered.values()) >= 3:
            if self.waits:
                print("warm", flush=True)
                sys.stdin.readline()
            self._begin = perf_counter()
        return batch


if __name__ == "__main__":
    main()
