"""Coach beside other frameworks on the same work, interleaved, each run a process of its own.

Machines are noisy, so what counts is the ratio within each round, not the absolute speed. The floor
beside the figures is what environments and products of matrices take alone, see floor.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table
from surroundings import surroundings

HERE = Path(__file__).parent
_WIDE = 120  # characters of a table, also where it goes to a file


@dataclass(frozen=True)
class Workload:
    """What is trained, for how many environment steps, and which peers can do the same."""

    what: str
    steps: int
    peers: tuple[str, ...]


WORKLOADS = {
    "W1": Workload("PPO CartPole-v1, 8 environments", 100_000, ("sb3", "sbx", "cleanrl")),
    "W2": Workload("DQN CartPole-v1", 50_000, ("sb3", "sbx")),
    "W3": Workload("SAC HalfCheetah-v5", 10_000, ("sb3", "sbx")),
    "W4": Workload("DQN Pong", 8_000, ("sb3",)),
    "W5": Workload("PPO Pong, 8 environments", 16_384, ("sb3",)),
    "W5-native": Workload(
        "PPO Pong, 8 environments in C++ (CleanRL: EnvPool)", 16_384, ("cleanrl",)
    ),
}
NAMES = {
    "coach": "Coach",
    "sb3": "Stable-Baselines3",
    "sbx": "SBX (JAX)",
    "cleanrl": "CleanRL",
}
#: What has to be installed for a peer, which script runs it, and with which interpreter.
PEERS = {
    "sb3": ("stable_baselines3", "peers.py", "peer_python"),
    "sbx": ("sbx", "peers.py", "peer_python"),
    "cleanrl": ("cleanrl", "cleanrl_peer.py", "cleanrl_python"),
}


def main() -> int:
    """Run the chosen workloads and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"{', '.join(WORKLOADS)}; all if left out")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the workload's steps")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument(
        "--cleanrl-python", default=sys.executable, help="that with CleanRL and EnvPool"
    )
    parser.add_argument("--set", action="append", default=[], help="KEY.PATH=VALUE for Coach")
    parser.add_argument(
        "--one-cpu", action="store_true", help="keep every run on one CPU; SBX uses all otherwise"
    )
    options = parser.parse_args()
    if options.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # runs inherit it
        options.set.insert(0, "run.threads=1")  # where a workload asks for two
    unknown = set(options.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"unknown workload {', '.join(unknown)}; known: {', '.join(WORKLOADS)}")
    there = {
        name: [getattr(options, python), str(HERE / script), name]
        for name, (module, script, python) in PEERS.items()
        if _installed(getattr(options, python), module)
    }
    if not there:
        print("No peer is installed. Run: pip install 'coach-rl[bench]'", file=sys.stderr)
        return 1
    for name in options.workloads or WORKLOADS:
        peers = {peer: there[peer] for peer in WORKLOADS[name].peers if peer in there}
        if peers:
            _compare(name, peers, options.rounds, options.scale, options.set)
        else:
            print(f"{name}: none of {', '.join(WORKLOADS[name].peers)} is installed", flush=True)
    return 0


def _installed(python: str, module: str) -> bool:
    probe = [python, "-c", f"import importlib.util as u; assert u.find_spec('{module}')"]
    return not subprocess.run(probe, capture_output=True, check=False).returncode


def _compare(
    workload: str, peers: dict[str, list[str]], rounds: int, scale: float, changed: list[str]
) -> None:
    steps = int(WORKLOADS[workload].steps * scale)
    commands = {"coach": [sys.executable, str(HERE / "ours.py")], **peers}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for seed in range(1, rounds + 1):
        for name, command in commands.items():
            settings = changed if name == "coach" else []
            runs[name].append(_run([*command, workload, str(seed), str(steps), *settings]))
    floor = json.loads(_output([sys.executable, str(HERE / "floor.py"), workload])[0])
    title = f"{workload} {WORKLOADS[workload].what}: {steps:,} steps, {rounds} rounds"
    table = Table(title=title, title_justify="left")
    columns = (
        "",
        "env steps/s",
        "Coach's ratio to it",
        "CPU s",
        "start-up s",
        "peak MiB",
        "return",
    )
    for column in columns:
        table.add_column(column, justify="right")
    ours = runs["coach"]
    for name, mine in runs.items():
        ratios = [a["speed"] / b["speed"] for a, b in zip(ours, mine)]
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(
            NAMES[name],
            f"{median(run['speed'] for run in mine):,.0f}",
            ratio if name != "coach" else "",
            f"{median(run['cpu'] for run in mine):.1f}",
            f"{median(run['startup'] for run in mine):.1f}",
            f"{median(run['memory'] for run in mine):,.0f}",
            " ".join(f"{run['return']:.0f}" for run in mine),
        )
    console = Console(width=max(Console().width, _WIDE))
    console.print(table)
    share = median(run["speed"] for run in ours) / floor["speed"]
    console.print(
        f"floor: {floor['speed']:,.0f} env steps/s while updating; a step of environments takes "
        f"{floor['environments']:,.0f} us, products {floor['acting']:,.0f} us for actions and "
        f"{floor['update']:,.0f} us for an update. Coach reaches {share:.0%} over the whole run.\n",
        highlight=False,
        soft_wrap=True,
    )


def _run(command: list[str]) -> dict[str, float]:
    begin = perf_counter()
    output, cpu, memory = _output(command)
    told: dict[str, float] = json.loads(output)
    return {
        "speed": told["env_steps"] / told["seconds"],
        "startup": perf_counter() - begin - told["seconds"],
        "cpu": cpu,
        "memory": memory,
        "return": told["return"],
    }


def _output(command: list[str]) -> tuple[str, float, float]:
    """The last line that a command prints, its CPU seconds and its largest memory in MiB."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=surroundings(),
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    last = output.strip().splitlines()[-1]
    return last, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
