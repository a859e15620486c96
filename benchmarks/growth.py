"""Whether costs stay flat as things grow: the memory's fill, the number of environments, the run.

- fill: microseconds to write a fragment of 16 steps and to draw a minibatch of 256, uniform and
  prioritized, with 1, 10 and 100 % of a million transitions stored.
- envs: microseconds per environment step of acting in 1 to 1,024 environments that cost nothing.
- length: the same after every tenth of a long run, and the memory of the process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch
from coach.core.spec import Spec
from coach.memories.replay import Replay
from coach.memories.samplers.prioritized import Prioritized
from coach.memories.samplers.uniform import Uniform
from coach.runners.loop import train
from coach.runners.training import start
from gymnasium import spaces
from modes import settings_of
from replay import empty_fragment
from rich.console import Console
from rich.table import Table
from worlds import World, named

CAPACITY, BATCH, FRAGMENT, REPEATS = 1_000_000, 256, 16, 300
SPEC = Spec(spaces.Box(-1, 1, (17,)), spaces.Box(-1, 1, (6,)))
PARTS = ("fill", "envs", "length")


def main() -> None:
    """Measure the chosen parts and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all if left out")
    parser.add_argument("--steps", type=int, default=10_000_000, help="of the long run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts or PARTS:
        if part == "fill":
            _fill()
        elif part == "envs":
            _envs()
        elif part == "length":
            _length(options.steps)
        else:
            parser.error(f"unknown part {part}; known: {', '.join(PARTS)}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _fill() -> None:
    columns = ("stored", "write, us", "uniform draw, us", "prioritized draw and feedback, us")
    table = _table("A replay memory of a million transitions", *columns)
    memories = [
        Replay(SPEC, 1, 0, CAPACITY, BATCH, warmup=0, updates_per_step=1e-12, sampler=sampler)
        for sampler in (Uniform(), Prioritized())
    ]
    streams = [memory.batches(lambda batch: batch, lambda: True) for memory in memories]
    many, few = empty_fragment(SPEC, 1_000), empty_fragment(SPEC, FRAGMENT)
    many.reward[:] = torch.rand(1_000, 1)
    for share in (0.01, 0.1, 1.0):
        for memory in memories:
            while memory.env_steps < share * CAPACITY:
                memory.write(many)
        spent = []
        for stream, memory in zip(streams, memories):
            begin = perf_counter()
            for _ in range(REPEATS):
                batch = next(stream)
                memory.feedback(batch, batch.reward.abs() + 0.1)
            spent.append((perf_counter() - begin) / REPEATS * 1e6)
        begin = perf_counter()
        for _ in range(REPEATS):
            memories[0].write(few)
        write = (perf_counter() - begin) / REPEATS * 1e6
        table.add_row(f"{share:.0%}", *(f"{value:,.0f}" for value in (write, *spent)))
    Console().print(table)


def _envs() -> None:
    table = _table("Environments that cost nothing", "environments", "us per environment step")
    for envs in (1, 4, 16, 64, 256, 1_024):
        with _Run(envs=envs, log_every=100_000) as run:
            source = run.experiment.source
            for _ in range(3):
                source.collect()
            rounds = max(3, 4_000 // (envs * 16))
            begin = perf_counter()
            for _ in range(rounds):
                source.collect()
            spent = (perf_counter() - begin) / (rounds * envs * 16)
        table.add_row(f"{envs:,}", f"{spent * 1e6:.1f}")
    Console().print(table)


def _length(steps: int) -> None:
    title = f"A run of {steps:,} steps in 16 environments that cost nothing"
    table = _table(title, "of the run", "us per environment step", "MiB")
    process = psutil.Process(os.getpid())
    with _Run(envs=16, steps=steps, log_every=10_000) as run:
        mark = [perf_counter(), 0, 1]

        def note() -> None:
            done, (since, before, tenth) = run.clock.env_steps, mark
            if done >= steps * tenth // 10:
                spent = (perf_counter() - since) / (done - before) * 1e6
                memory = process.memory_info().rss / 2**20
                table.add_row(f"{tenth * 10} %", f"{spent:.1f}", f"{memory:,.0f}")
                mark[:] = [perf_counter(), done, tenth + 1]

        experiment = run.experiment
        train(experiment.source, experiment.memory, experiment.learner, run.clock, run.log, note)
    Console().print(table)


class _Run:
    """A run in a folder that goes away with it."""

    def __init__(self, **run: Any) -> None:
        self.folder = tempfile.TemporaryDirectory()
        settings = settings_of({"id": named(World)}, **run)
        self.run = start("growth", settings, Path(self.folder.name), Console(), [], quiet=True)

    def __enter__(self) -> Any:
        return self.run

    def __exit__(self, *_: object) -> None:
        self.run.experiment.source.close()
        self.run.log.close()
        self.folder.cleanup()


if __name__ == "__main__":
    main()
