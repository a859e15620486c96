"""What a second CPU brings: one run that uses both, beside two copies that use one each.

Two copies of a run on one thread each show what this machine's CPUs can do for this arithmetic at
most; where they are two threads of one core, that is far less than twice. One run shows what of it
a user gets, in the mode that is best for the workload: two workers that act, learn and move shared
weights without waiting for each other. It has as many environments as the copies together, so each
worker does what a copy does. Each round measures all three.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from surroundings import surroundings

HERE = Path(__file__).parent
_GRADIENTS = ["run.mode=async", "run.exchange=gradients", "run.workers=2"]
_ALONE = ["run.threads=1"]


@dataclass(frozen=True)
class Workload:
    """How long a run is, and how many environments the one that uses both CPUs has.

    So long that the second or so in which the other worker starts hardly counts.
    """

    steps: int
    envs: int


WORKLOADS = {
    "W1": Workload(800_000, 16),
    "W2": Workload(240_000, 2),
    "W3": Workload(12_000, 2),
    "W4": Workload(8_000, 2),
    "W5": Workload(16_384, 16),
}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"{', '.join(WORKLOADS)}; all if left out")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run")
    parser.add_argument("--set", action="append", help="instead of the settings for two CPUs")
    options = parser.parse_args()
    table = Table(title=f"Two CPUs instead of one, {options.rounds} rounds", title_justify="left")
    columns = (
        "",
        "one, env steps/s",
        "one run on both",
        "two copies",
        "share",
        "returns, one",
        "returns, both",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for name in options.workloads or WORKLOADS:
        workload = WORKLOADS[name]
        both = [f"run.envs={workload.envs}", *(options.set or [*_GRADIENTS, *_ALONE])]
        rounds = [_round(name, workload, seed, both) for seed in range(1, options.rounds + 1)]
        alone, run, copies = zip(*rounds)
        table.add_row(
            name,
            f"{median(told.speed for told in alone):,.0f}",
            _ratios([b.speed / a.speed for a, b in zip(alone, run)]),
            _ratios([c.speed / a.speed for a, c in zip(alone, copies)]),
            _ratios([b.speed / c.speed for b, c in zip(run, copies)]),
            " ".join(f"{told.value:.0f}" for told in alone),
            " ".join(f"{told.value:.0f}" for told in run),
        )
    Console(width=max(Console().width, 150)).print(table)


def _ratios(found: list[float]) -> str:
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


class _Told(NamedTuple):
    """Env steps per second, and the return at the end."""

    speed: float
    value: float


def _round(name: str, workload: Workload, seed: int, both: list[str]) -> tuple[_Told, _Told, _Told]:
    """A run on one CPU, one on both, and two copies together."""
    common = [name, str(seed), str(workload.steps)]
    alone = _result(_start([*common, *_ALONE]))
    run = _result(_start([*common, *both]))
    copies = [_result(started) for started in [_start([*common, *_ALONE]) for _ in range(2)]]
    return alone, run, _Told(sum(told.speed for told in copies), copies[0].value)


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "ours.py"), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=surroundings())


def _result(run: subprocess.Popen[str]) -> _Told:
    output, errors = run.communicate()
    if run.returncode:
        raise SystemExit(errors)
    told = json.loads(output.strip().splitlines()[-1])
    return _Told(told["env_steps"] / told["seconds"], told["return"])


if __name__ == "__main__":
    main()
