"""Very many actors on one machine: whether they start, work and end, and what each one takes.

An asynchronous training on a toy environment is started from the command line, one environment per
actor process. When all of them have delivered, it takes some more steps, and is then interrupted
as Ctrl-C does it: exit status 130 with a checkpoint is its clean end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic

import psutil
from rich.console import Console
from rich.table import Table
from soak import Training, orphans, shared_segments
from worlds import World, named


def main() -> int:
    """Run; 1 if it did not end cleanly."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--actors", type=int, default=64, help="how many")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps, over all")
    options = parser.parse_args()
    segments = shared_segments()
    with tempfile.TemporaryDirectory() as folder:
        changes = {
            "environment.id": named(World),
            "run.envs": options.actors,
            "run.fragment_length": 16,
            "memory.updates_per_step": 0.01,
            "evaluation.every": 0,
        }
        begin = monotonic()
        run = Training("CartPole_DQN", options.actors, Path(folder), changes)
        try:
            run.await_actors()
            start, first, begin = monotonic() - begin, run.env_steps, monotonic()
            measure, mib = _memory_of(run.actors())
            run.await_that(lambda: run.env_steps >= first + options.steps, "steps")
            speed = (run.env_steps - first) / (monotonic() - begin)
            begin = monotonic()
            status, left = run.interrupt(), run.left_over()
            end = monotonic() - begin
        finally:
            run.end()
        if status != 130:
            print(run.told, file=sys.stderr)
    shared = orphans(segments)
    table = Table("", "", title=f"{len(mib)} actors, {options.steps:,} steps", title_justify="left")
    table.add_row("start, until all have delivered", f"{start:.1f} s")
    table.add_row("env steps/s from then on", f"{speed:,.0f}")
    table.add_row(f"memory per actor ({measure}), median", f"{median(mib):.1f} MiB")
    table.add_row(f"memory of all actors ({measure})", f"{sum(mib):,.0f} MiB")
    table.add_row("end, until no process is left", f"{end:.1f} s")
    table.add_row("exit status", str(status))
    table.add_row("processes left", ", ".join(map(str, left)) or "none")
    table.add_row("left in shared memory", ", ".join(shared) or "none")
    Console().print(table)
    return 0 if status == 130 and len(mib) == options.actors and not (left or shared) else 1


def _memory_of(actors: list[psutil.Process]) -> tuple[str, list[float]]:
    """What each actor takes in MiB, and how it is measured.

    PSS splits what processes share among them; USS leaves it out, RSS counts it for each.
    """
    full = [actor.memory_full_info() for actor in actors]
    name = next(name for name in ("pss", "uss", "rss") if hasattr(full[0], name))
    return name.upper(), [getattr(one, name) / 2**20 for one in full]


if __name__ == "__main__":
    sys.exit(main())
