"""W6: asynchronous Pong with Coach, Sample Factory and RLlib in turn, agent steps per second.

All make one pass over rollouts of 32 steps in minibatches of 256. Coach and Sample Factory have 16
environments in two workers and a learner; RLlib's IMPALA has 8 in one worker, which costs it less
than two. Counted are the steps that were learned from, from the first step of an environment to
the end; CPU seconds are those of all processes meanwhile. The peers need interpreters of their own
(sample_factory.txt, rllib_impala.txt).
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
#: Scripts of the peers, and the options that name their interpreters.
PEERS = {
    "Sample Factory": ("sample_factory.py", "peer_python"),
    "RLlib IMPALA": ("rllib_impala.py", "rllib_python"),
}


def main() -> int:
    """Run all in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each")
    parser.add_argument("--seconds", type=int, default=60, help="of each run")
    parser.add_argument("--peer-python", help="interpreter with Sample Factory; left out: no peer")
    parser.add_argument("--rllib-python", help="interpreter with RLlib; left out: not run")
    parser.add_argument("--set", action="append", default=[], help="KEY.PATH=VALUE for Coach")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.seconds, options.set)))
        return 0
    changed = [part for text in options.set for part in ("--set", text)]
    commands = {"coach": [sys.executable, __file__, "--measure", *changed]}
    for name, (script, option) in PEERS.items():
        if python := getattr(options, option):
            commands[name] = [python, str(HERE / script)]
    told: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            told[name].append(_run(command, options.seconds))
    table = Table(
        title=f"W6: {options.rounds} rounds of {options.seconds:g} s", title_justify="left"
    )
    for column in ("", "agent steps/s", "CPU ms per step", "peak MiB", "Coach's ratio"):
        table.add_column(column, justify="right")
    speeds = {name: [run["agent_steps_per_s"] for run in runs] for name, runs in told.items()}
    for name, runs in told.items():
        ratios = [ours / theirs for ours, theirs in zip(speeds["coach"], speeds[name])]
        found = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(
            name,
            f"{median(speeds[name]):,.0f}",
            f"{median(run['cpu_seconds'] / run['agent_steps'] * 1e3 for run in runs):.2f}",
            f"{median(run['peak_mib'] for run in runs):,.0f}",
            "" if name == "coach" else found,
        )
    Console(width=max(Console().width, 100)).print(table)
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
        self._after = run.after_fragment
        run.after_fragment = self.after_fragment

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
