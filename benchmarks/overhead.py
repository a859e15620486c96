"""What a run spends on telling about itself: telemetry, and evaluations here or beside it.

Every round trains a preset bare, then with lines every so many steps, then with its evaluations as
well, judged in the run's process and in one of their own; each in a process of its own.
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
from surroundings import surroundings

HERE = Path(__file__).parent
PRESETS = {"CartPole_PPO": 400_000, "CartPole_DQN": 50_000}
_BARE = ["run.checkpoint_every=0", "evaluation.every=0"]
_JUDGED = ["run.checkpoint_every=0"]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", help=f"{', '.join(PRESETS)} if left out")
    parser.add_argument("--steps", type=int, help="of each run")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run")
    options = parser.parse_args()
    table = Table(title=f"Over a bare run, {options.rounds} rounds", title_justify="left")
    for column in ("preset", "bare, s", "telemetry", "evaluated here", "evaluated beside"):
        table.add_column(column, justify="right")
    for preset in options.presets or PRESETS:
        steps = options.steps or PRESETS.get(preset, 50_000)
        rounds = [_round(preset, steps, seed) for seed in range(1, options.rounds + 1)]
        bare, telling, here, beside = zip(*rounds)
        table.add_row(
            preset,
            f"{median(bare):.2f}",
            *(_costs(list(with_it), bare) for with_it in (telling, here, beside)),
        )
    Console().print(table)


def _round(preset: str, steps: int, seed: int) -> tuple[float, ...]:
    return (
        _seconds(preset, steps, seed, [*_BARE, f"run.log_every={steps}"]),
        _seconds(preset, steps, seed, _BARE),
        _seconds(preset, steps, seed, [*_JUDGED, "evaluation.background=false"]),
        _seconds(preset, steps, seed, [*_JUDGED, "evaluation.background=true"]),
    )


def _seconds(preset: str, steps: int, seed: int, settings: list[str]) -> float:
    command = [sys.executable, str(HERE / "ours.py"), preset, str(seed), str(steps), *settings]
    told = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=surroundings()
    ).stdout
    return float(json.loads(told.splitlines()[-1])["seconds"])


def _costs(seconds: list[float], bare: tuple[float, ...]) -> str:
    shares = sorted(100 * (with_it / without - 1) for with_it, without in zip(seconds, bare))
    return f"{median(shares):+.1f} % ({shares[0]:+.1f} to {shares[-1]:+.1f})"


if __name__ == "__main__":
    main()
