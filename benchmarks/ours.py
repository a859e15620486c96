"""One workload, or preset, with Coach; prints a line of JSON."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from coach.runners.preset import load
from coach.runners.training import start
from rich.console import Console


def main(workload: str, seed: int, steps: int, settings: list[str]) -> dict[str, float]:
    """Train; telemetry stays on, as users have it."""
    path = Path(__file__).parent / "workloads" / f"{workload}.yaml"
    preset = str(path) if path.exists() else workload
    name, plain = load(preset, [f"run.seed={seed}", f"run.steps={steps}", *settings])
    with tempfile.TemporaryDirectory() as folder:
        run = start(name, plain, Path(folder), Console(), [], quiet=True)
        begin = perf_counter()
        result = run.train()
        seconds = perf_counter() - begin
        with (result.folder / "progress.csv").open() as file:
            returns = [row["episode/return"] for row in csv.DictReader(file)]
    last = [float(value) for value in returns[-5:] if value]
    return {
        "seconds": seconds,
        "env_steps": result.env_steps,
        "return": sum(last) / len(last) if last else float("nan"),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
