"""What it costs to move experience and weights between processes (mode `async`).

Fragments. An actor writes its steps straight into a slot of shared memory. *Moving* a fragment is
everything that happens from there until its frames lie in the replay memory and the actor may
fill the slot again: the learner hears of the slot and takes it, `memory.write` copies it, and the
slot is handed back.

It is held against memcpy from the same slots to as large a memory: once against one of `obs`, the
T x N frames that have to arrive, below which nothing can be that keeps them; and once against one
of all the frames in the fragment, `obs` and `next_obs`. Of the latter, which repeats nearly all of
the former, the memory reads the last row and the ends of episodes, for it stores every frame once.

The replay has been filled once before. The actor has one slot, so that it rests while the learner
is measured. What it pays itself to write the rows of `obs` and `next_obs` is shown apart: mode
`single` pays the same, in memory of its own.

Weights. Publishing the 1.7 million parameters of the Nature CNN on the board, and picking them up
in another process.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import Any

import numpy as np
import torch
from coach.architectures.network import Network
from coach.core.layout import Zeros, zeros
from coach.core.spec import Spec
from coach.environments.arrays import EnvArrays
from coach.runners.board import WeightBoard
from coach.runners.channel import Channel
from coach.runners.experiment import build_experiment
from coach.runners.fragment import FragmentBuffer
from coach.runners.shared import SharedBlock, share
from coach.runners.worker import Worker, stop_all
from rich.console import Console
from rich.table import Table
from torch import nn
from worlds import Frames, named

MOVE_BAR = 1.3  # times one memcpy
WEIGHTS_BAR = 5.0  # milliseconds, publish and fetch together
_FETCHED = b"d"
_OBS, _BOTH, _MOVED = "memcpy of obs", "memcpy of both", "moved"
_LAPS = 16  # fragments that fit into the replay memory


def main() -> None:
    """Measure both and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=32, help="per fragment, T")
    parser.add_argument("--envs", type=int, default=8, help="environments per fragment, N")
    parser.add_argument("--rounds", type=int, default=100, help="fragments, and publications")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _show_fragments(options.steps, options.envs, options.rounds)
    _show_weights(options.rounds)


def _show_fragments(steps: int, envs: int, rounds: int) -> None:
    spent: dict[str, list[float]] = {}
    for part in _fragments(steps, envs, rounds):
        for name, seconds in part.items():
            spent.setdefault(name, []).append(1e3 * seconds)
    mib = steps * envs * 4 * 84 * 84 / 2**20
    console = Console()
    console.print(
        f"A fragment of {steps} x {envs} observations of 4 x 84 x 84 bytes, {mib:.1f} MiB, and as "
        f"much again with next_obs; {rounds} rounds",
        highlight=False,
    )
    table = Table()
    table.add_column("")
    for column in ("ms", "over memcpy of obs", "over memcpy of both"):
        table.add_column(column, justify="right")
    for name, of_part in spent.items():
        ratios = [
            median(one / memcpy for one, memcpy in zip(of_part, spent[against]))
            for against in (_OBS, _BOTH)
        ]
        verdicts = [f" {'met' if ratio <= MOVE_BAR else 'missed'}" for ratio in ratios]
        shown = [
            f"{ratio:.2f}{verdict if name == _MOVED else ''}"
            for ratio, verdict in zip(ratios, verdicts)
        ]
        table.add_row(name, f"{median(of_part):.3f}", *shown)
    console.print(table)
    console.print(f"Moved: the bar is {MOVE_BAR:g}. Medians, ratios round by round.\n")


def _fragments(steps: int, envs: int, rounds: int) -> Iterator[dict[str, float]]:
    """Seconds by part, for each round."""
    experiment = build_experiment(
        {
            "environment": {"id": named(Frames)},
            "agent": {
                "type": "dqn",
                "network": {"embedder": {"type": "mlp", "hidden": [1]}, "heads": {"q": "q"}},
            },
            "memory": {"type": "replay", "capacity": _LAPS * steps * envs, "warmup": 10**9},
            "run": {
                "steps": 10**9,
                "mode": "async",
                "workers": 1,
                "slots": 1,
                "envs": envs,
                "fragment_length": steps,
            },
        }
    )
    source, memory, policy = experiment.source, experiment.memory, experiment.agent.policy
    shared, own = _Rows(steps, envs, shared=True), _Rows(steps, envs, shared=False)
    flat = np.ones((_LAPS, 2 * steps * envs * 4 * 84 * 84), np.uint8)  # ones: every page is there
    try:
        for number in range(_LAPS + rounds):
            place = flat[number % _LAPS]
            moved = _move(source, memory, policy)
            once = _copy(source, memory, policy, place, "obs")
            both = _copy(source, memory, policy, place, "obs", "next_obs")
            rows = {"actor's rows, to the slot": shared.write(), "to its own memory": own.write()}
            if number >= _LAPS:
                yield {_OBS: once, _BOTH: both, **moved, **rows}
    finally:
        source.close()


def _move(source: Any, memory: Any, policy: nn.Module) -> dict[str, float]:
    _await_fragment(source)
    begin = perf_counter()
    batch = source.collect()
    taken = perf_counter()
    memory.write(batch)
    written = perf_counter()
    source.publish(policy, 0)  # the version is not new, so this only hands the slot back
    end = perf_counter()
    parts = {"take": taken - begin, "memory.write": written - taken, "hand back": end - written}
    return {**parts, _MOVED: end - begin}


def _copy(source: Any, memory: Any, policy: nn.Module, place: Any, *names: str) -> float:
    """Copy a fresh fragment's arrays to a place, one memcpy each, and then move it unmeasured."""
    _await_fragment(source)
    batch = source.collect()
    spent, at = 0.0, 0
    for name in names:
        array = getattr(batch, name).numpy().reshape(-1)
        begin = perf_counter()
        np.copyto(place[at : at + array.size], array)
        spent += perf_counter() - begin
        at += array.size
    memory.write(batch)
    source.publish(policy, 0)
    return spent


def _await_fragment(source: Any) -> None:
    """Wait until the actor has filled its slot, and rests; awake, as a learner at work would be."""
    channel = getattr(source.workers[0], "channel", None)  # it starts with the first fragment
    while channel and not channel.waiting():
        pass


class _Rows:
    """Writes fragments row by row, as an actor does; nothing else of acting.

    Args:
        steps: per fragment.
        envs: environments.
        shared: write to a block that other processes could see.
    """

    def __init__(self, steps: int, envs: int, shared: bool) -> None:
        spec = Spec(Frames().observation_space, Frames().action_space)

        def lay_out(zeros: Zeros) -> FragmentBuffer:
            return FragmentBuffer(spec, steps, torch.arange(envs), {}, zeros=zeros)

        self.fragment = lay_out(share(lay_out).zeros if shared else zeros)
        self.arrays = EnvArrays.allocate(spec, envs)
        self.action = np.zeros(envs, np.int64)

    def write(self) -> float:
        """Write a fragment; in seconds, what that took."""
        begin = perf_counter()
        for t in range(self.fragment.length):
            self.fragment.begin(t, self.arrays.obs, self.action)
            self.fragment.finish(t, self.arrays.step([]), {})
        return perf_counter() - begin


def _show_weights(rounds: int) -> None:
    network = _nature_cnn()
    board = WeightBoard(network)
    worker = Worker(0, "process", fetch_weights, [])
    worker.start(board.block.again())
    published, fetched = [], []
    try:
        worker.channel.receive()
        for version in range(1, rounds + 1):
            begin = perf_counter()
            board.publish(version)
            published.append(1e3 * (perf_counter() - begin))
            worker.channel.send(_FETCHED)
            fetched.append(1e-6 * worker.channel.receive().value)
    finally:
        stop_all([worker])
    total = median(one + other for one, other in zip(published, fetched))
    count = sum(parameter.numel() for parameter in network.parameters())
    table = Table(
        "", "ms, median", title=f"{count:,} weights, {rounds} rounds", title_justify="left"
    )
    table.add_row("publish", f"{median(published):.3f}")
    table.add_row("fetch, in another process", f"{median(fetched):.3f}")
    verdict = "met" if total < WEIGHTS_BAR else "missed"
    table.add_row("both", f"{total:.3f} (bar {WEIGHTS_BAR:g}: {verdict})")
    Console().print(table)


def fetch_weights(channel: Channel, block: SharedBlock) -> None:
    """What the other process does: fetch when told to, and tell how many nanoseconds it took."""
    board, version = WeightBoard(_nature_cnn(), block), 0
    channel.send(_FETCHED)
    while True:
        channel.receive()
        begin = perf_counter_ns()
        newest = board.fetch()
        spent = perf_counter_ns() - begin
        if newest == version:
            raise RuntimeError("the weights published are not there")
        version = newest
        channel.send(_FETCHED, spent)


def _nature_cnn() -> Network:
    spec = Spec(Frames().observation_space, Frames().action_space)
    return Network(spec, heads={"q": "q"}, embedder="nature_cnn")


if __name__ == "__main__":
    main()
