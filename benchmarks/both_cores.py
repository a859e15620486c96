"""What a second CPU brings: one run that uses both, beside two copies that use one each.

Two copies of a run on one thread each show what this machine's CPUs can do for this arithmetic at
most; where they are two threads of one core, that is far less than twice. One run shows what of it
a user gets, in the mode that is best for the workload. Each round measures all three.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
#: Steps of a run, many where a worker process has to start first, and the settings with which it
#: uses two CPUs best.
WORKLOADS: dict[str, tuple[int, list[str]]] = {
    "W1": (200_000, ["run.mode=async", "run.workers=1", "agent.max_policy_lag=40"]),
    "W2": (60_000, ["run.mode=async", "run.workers=1"]),
    "W3": (4_000, []),
    "W4": (3_000, []),
    "W5": (6_144, []),
}
_ALONE = ["run.threads=1"]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"{', '.join(WORKLOADS)}; all if left out")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run")
    parser.add_argument("--set", action="append", help="instead of the settings for two CPUs")
    options = parser.parse_args()
    table = Table(title=f"Two CPUs instead of one, {options.rounds} rounds", title_justify="left")
    for column in ("", "one, env steps/s", "one run on both", "two copies", "share of their gain"):
        table.add_column(column, justify="right")
    for workload in options.workloads or WORKLOADS:
        steps, settings = WORKLOADS[workload]
        rounds = [
            _round(workload, seed, steps, options.set or settings)
            for seed in range(1, options.rounds + 1)
        ]
        table.add_row(
            workload,
            f"{median(alone for alone, _, _ in rounds):,.0f}",
            _ratios([both / alone for alone, both, _ in rounds]),
            _ratios([copies / alone for alone, _, copies in rounds]),
            _ratios([both / copies for _, both, copies in rounds]),
        )
    Console(width=max(Console().width, 120)).print(table)


def _ratios(found: list[float]) -> str:
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def _round(workload: str, seed: int, steps: int, settings: list[str]) -> tuple[float, float, float]:
    """Env steps per second of a run on one CPU, of one on both, and of two copies together."""
    alone = _speed(_start(workload, seed, steps, _ALONE))
    both = _speed(_start(workload, seed, steps, settings))
    copies = [_start(workload, seed, steps, _ALONE) for _ in range(2)]
    return alone, both, sum(map(_speed, copies))


def _start(workload: str, seed: int, steps: int, settings: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "ours.py"), workload, str(seed), str(steps), *settings]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _speed(run: subprocess.Popen[str]) -> float:
    output, errors = run.communicate()
    if run.returncode:
        raise SystemExit(errors)
    told = json.loads(output.strip().splitlines()[-1])
    return float(told["env_steps"] / told["seconds"])


if __name__ == "__main__":
    main()
