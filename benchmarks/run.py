"""Coach beside Stable-Baselines3 on the same work, interleaved, each run a process of its own.

Machines are noisy, so what counts is the ratio within each round, not the absolute speed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
STEPS = {"W1": 100_000, "W2": 50_000, "W3": 10_000}
WHAT = {
    "W1": "PPO CartPole-v1, 8 environments",
    "W2": "DQN CartPole-v1",
    "W3": "SAC HalfCheetah-v5",
}


def main() -> int:
    """Run the chosen workloads and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help="W1, W2, W3; all if left out")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the workload's steps")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peer")
    options = parser.parse_args()
    unknown = set(options.workloads) - set(STEPS)
    if unknown:
        parser.error(f"unknown workload {', '.join(unknown)}; known: {', '.join(STEPS)}")
    probe = [options.peer_python, "-c", "import stable_baselines3"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        print("stable-baselines3 is missing. Run: pip install 'coach-rl[bench]'", file=sys.stderr)
        return 1
    for workload in options.workloads or STEPS:
        _compare(workload, options.rounds, options.scale, options.peer_python)
    return 0


def _compare(workload: str, rounds: int, scale: float, peer_python: str) -> None:
    steps = int(STEPS[workload] * scale)
    ours, peer = [], []
    for seed in range(1, rounds + 1):
        ours.append(_run([sys.executable, str(HERE / "ours.py")], workload, seed, steps))
        peer.append(_run([peer_python, str(HERE / "sb3.py")], workload, seed, steps))
    table = Table(
        title=f"{workload} {WHAT[workload]}: {steps:,} steps, {rounds} rounds", title_justify="left"
    )
    for column in ("", "env steps/s", "CPU s", "start-up s", "peak MiB", "return at the end"):
        table.add_column(column, justify="right")
    for name, runs in (("coach", ours), ("Stable-Baselines3", peer)):
        table.add_row(
            name,
            f"{median(run['speed'] for run in runs):,.0f}",
            f"{median(run['cpu'] for run in runs):.1f}",
            f"{median(run['startup'] for run in runs):.1f}",
            f"{median(run['memory'] for run in runs):,.0f}",
            " ".join(f"{run['return']:.0f}" for run in runs),
        )
    ratios = [a["speed"] / b["speed"] for a, b in zip(ours, peer)]
    console = Console()
    console.print(table)
    console.print(
        f"ratio of the speeds, round by round: median {median(ratios):.2f} "
        f"(lowest {min(ratios):.2f}, highest {max(ratios):.2f})\n",
        highlight=False,
    )


def _run(command: list[str], workload: str, seed: int, steps: int) -> dict[str, float]:
    begin = perf_counter()
    process = subprocess.Popen(
        [*command, workload, str(seed), str(steps)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} {workload} failed")
    told: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return {
        "speed": told["env_steps"] / told["seconds"],
        "startup": perf_counter() - begin - told["seconds"],
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss / 1024,
        "return": told["return"],
    }


if __name__ == "__main__":
    sys.exit(main())
