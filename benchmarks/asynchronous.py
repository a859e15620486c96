"""W6: asynchronous Pong with Coach and with Sample Factory in turn, agent steps per second.

Both make one pass over rollouts of 32 steps in minibatches of 256, with 16 environments in two
workers and a learner. Counted are the steps that were learned from, from the first step of an
environment to the end; CPU seconds are those of all processes meanwhile. The peer needs an
interpreter of its own (sample_factory.txt).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psutil
from coach.runners.preset import load
from coach.runners.training import start
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent


def main() -> int:
    """Run both in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs")
    parser.add_argument("--seconds", type=int, default=60, help="of each run")
    parser.add_argument("--peer-python", help="interpreter with Sample Factory; left out: no peer")
    parser.add_argument("--set", action="append", default=[], help="KEY.PATH=VALUE for Coach")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.seconds, options.set)))
        return 0
    ours, peer = [], []
    changed = [part for text in options.set for part in ("--set", text)]
    for _ in range(options.rounds):
        ours.append(_run([sys.executable, __file__, "--measure", *changed], options.seconds))
        if options.peer_python:
            command = [options.peer_python, str(HERE / "sample_factory.py")]
            peer.append(_run(command, options.seconds))
    table = Table(
        title=f"W6: {options.rounds} rounds of {options.seconds:g} s", title_justify="left"
    )
    for column in ("", "agent steps/s", "CPU ms per step", "peak MiB"):
        table.add_column(column, justify="right")
    for name, runs in (("coach", ours), ("Sample Factory", peer)):
        if runs:
            table.add_row(
                name,
                f"{median(run['agent_steps_per_s'] for run in runs):,.0f}",
                f"{median(run['cpu_seconds'] / run['agent_steps'] * 1e3 for run in runs):.2f}",
                f"{median(run['peak_mib'] for run in runs):,.0f}",
            )
    console = Console()
    console.print(table)
    if peer:
        ratios = [a["agent_steps_per_s"] / b["agent_steps_per_s"] for a, b in zip(ours, peer)]
        console.print(
            f"ratio of the speeds, round by round: median {median(ratios):.2f} "
            f"(lowest {min(ratios):.2f}, highest {max(ratios):.2f})",
            highlight=False,
        )
    return 0


def measure(seconds: int, changed: list[str]) -> dict[str, float]:
    """Train for some seconds, counted from the first step of an environment."""
    name, settings = load(str(HERE / "workloads" / "W6.yaml"), changed)
    with tempfile.TemporaryDirectory() as folder:
        run = start(name, settings, Path(folder), Console(), [], quiet=True)
        watch = _Watch(run, seconds)
        run.train()
    return watch.told()


class _Watch:
    """Stops a run in time, and notes what it used."""

    def __init__(self, run: Any, seconds: int) -> None:
        self.run, self.seconds = run, seconds
        self.begin = self.end = self.busy = self.peak = 0.0
        self._after = run._after_fragment
        run._after_fragment = self.after_fragment

    def after_fragment(self) -> None:
        self._after()
        now = perf_counter()
        if not self.begin:
            spent = self.run.experiment.source.elsewhere()
            self.begin = now - spent["environments"] - spent["acting"]
            self.busy = -self.cpu()
        elif now - self.begin > self.seconds and not self.end:
            self.end = now
            self.busy += self.cpu()
            self.peak = sum(p.memory_full_info().pss for p in self.processes()) / 2**20
            self.run.clock.stop = "time is up"

    def processes(self) -> list[psutil.Process]:
        mine = psutil.Process()
        return [mine, *mine.children(recursive=True)]

    def cpu(self) -> float:
        return sum(sum(p.cpu_times()[:2]) for p in self.processes())

    def told(self) -> dict[str, float]:
        steps, seconds = self.run.clock.env_steps, self.end - self.begin
        return {
            "agent_steps": steps,
            "seconds": seconds,
            "agent_steps_per_s": steps / seconds,
            "cpu_seconds": self.busy,
            "peak_mib": self.peak,
        }


def _run(command: list[str], seconds: int) -> dict[str, float]:
    done = subprocess.run(
        [*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(told), file=sys.stderr)
    return told


if __name__ == "__main__":
    sys.exit(main())
