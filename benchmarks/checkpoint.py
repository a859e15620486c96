"""How long checkpoints of a large replay stop training; prints a table."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from coach.core.batch import Batch
from coach.core.spec import Spec
from coach.memories.replay import Replay
from coach.memories.samplers.prioritized import Prioritized
from coach.runners.checkpoint import Checkpointer
from gymnasium import spaces
from rich.console import Console
from rich.table import Table

FRAMES = Spec(spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6))
FRAMES_BYTES = 4 * 84 * 84


def main() -> None:
    """Fill a replay fragment by fragment, with a checkpoint every 10,000 steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the replay")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    options = parser.parse_args()
    capacity = int(options.gib * 2**30 / FRAMES_BYTES)
    memory = Replay(FRAMES, num_envs=1, capacity=capacity, sampler=Prioritized())
    fragment = _fragment(steps=100)
    ticks, saves = [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpointer = Checkpointer(Path(folder), memory, keep=3)
        for step in range(100, capacity, 100):
            memory.write(fragment)
            begin = perf_counter()
            if step % 10_000:
                checkpointer.tick()
                ticks.append(perf_counter() - begin)
            else:
                state = {f"memory/{key}": value for key, value in memory.state_dict().items()}
                checkpointer.save(step, state)
                saves.append(perf_counter() - begin)
    table = Table(title=f"{capacity:,} transitions, {memory.nbytes / 2**30:.2f} GiB")
    for column in ("", "how often", "longest pause", "all pauses"):
        table.add_column(column, justify="right")
    chunks = [seconds for seconds in ticks if seconds > 1e-3]
    for name, pauses in (("journal chunks", chunks), ("checkpoints", saves)):
        table.add_row(name, str(len(pauses)), f"{1e3 * max(pauses):.0f} ms", f"{sum(pauses):.2f} s")
    Console().print(table)


def _fragment(steps: int) -> Batch:
    obs = torch.randint(0, 256, (steps, 1, 4, 84, 84), dtype=torch.uint8)
    ones = torch.ones(steps, 1)
    return Batch(
        obs,
        torch.zeros(steps, 1, dtype=torch.int64),
        ones,
        ones,
        obs,
        torch.zeros(steps, 1, dtype=torch.bool),
        env_ids=torch.arange(1),
    )


if __name__ == "__main__":
    main()
