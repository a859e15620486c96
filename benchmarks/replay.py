"""W7: replay memories alone, Coach's beside those of other libraries, interleaved.

- vector: a million transitions of 17 numbers (6 to act), minibatches of 256: uniform; prioritized,
  where what counts is a draw together with the new priorities of what was drawn.
- atari: 50,000 transitions of four stacked pictures, minibatches of 32, uniform; "arrays" are two
  plain arrays of whole stacks, "whole" is Coach's memory made to store whole stacks as well.
- atari-prioritized: the same, prioritized, with the new priorities.

Adding goes one transition at a time. Each measurement is a process of its own, with one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from surroundings import surroundings

OBS, ACTION, CAPACITY, BATCH = 17, 6, 1_000_000, 256
PICTURES, ATARI_BATCH = 50_000, 32
KINDS = {
    "vector": "uniform",
    "prioritized": "prioritized",
    "atari": "uniform, pictures",
    "atari-prioritized": "prioritized, pictures",
}
PEERS = {
    "arrays": ("numpy", ("atari",)),
    "whole": ("coach.memories", ("atari", "atari-prioritized")),
    "sb3": ("stable_baselines3", ("vector", "atari")),
    "cpprb": ("cpprb", ("vector", "prioritized")),
    "tianshou": ("tianshou", ("vector", "prioritized")),
}
BOX, ACTIONS = spaces.Box(-1, 1, (OBS,), np.float32), spaces.Box(-1, 1, (ACTION,), np.float32)
SCREEN, BUTTONS = spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6)


def main() -> int:
    """Measure, and print a table for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"{', '.join(KINDS)}; all if left out")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument(
        "--peer-python", action="append", default=[], help="interpreter with peers; repeatable"
    )
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        library, kind = options.measure
        print(json.dumps(measure(library, kind)))
        return 0
    for kind in options.kinds or KINDS:
        _compare(kind, options.rounds, options.peer_python)
    return 0


def _compare(kind: str, rounds: int, pythons: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    commands = {"coach": sys.executable}
    for python in [sys.executable, *pythons]:
        for name, (module, kinds) in PEERS.items():
            probe = f"import {module}"
            found = subprocess.run([python, "-c", probe], capture_output=True, check=False)
            if kind in kinds and not found.returncode:
                commands[name] = python
    told: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, python in commands.items():
            told[name].append(_run([python, __file__, "--measure", name, kind]))
    columns = ["", "adds/s", "batches/s", "Coach's ratio: adds", "batches", "bytes a transition"]
    table = Table(title=f"W7 {KINDS[kind]}: {rounds} rounds", title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for name, runs in told.items():
        ratios = [
            median(mine[what] / theirs[what] for mine, theirs in zip(told["coach"], runs))
            for what in ("adds", "batches")
        ]
        table.add_row(
            name,
            *(f"{median(run[what] for run in runs):,.0f}" for what in ("adds", "batches")),
            *(f"{ratio:.2f}" if name != "coach" else "" for ratio in ratios),
            f"{runs[0]['bytes']:,.0f}",
        )
    Console(width=max(Console().width, 120)).print(table)


def _run(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings())
    if done.returncode:
        raise SystemExit(done.stderr)
    told: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def measure(library: str, kind: str) -> dict[str, float]:
    """Adds and batches per second of one memory, and what a transition takes."""
    torch.set_num_threads(1)
    builders: dict[str, Callable[[str], Memory]] = {
        "coach": Coach,
        "arrays": Arrays,
        "whole": WholeStacks,
        "sb3": StableBaselines3,
        "cpprb": Cpprb,
        "tianshou": Tianshou,
    }
    memory = builders[library](kind)
    rng = np.random.default_rng(0)
    steps = _steps(kind, rng)
    for _ in range(PICTURES if "atari" in kind else memory.fill):
        memory.add(*next(steps))
    begin = perf_counter()
    count = 2_000 if "atari" in kind else 10_000
    spent = 0.0
    for _ in range(count):
        step = next(steps)
        begin = perf_counter()
        memory.add(*step)
        spent += perf_counter() - begin
    adds = count / spent
    draws = 500 if "atari" in kind else 2_000
    best = 0.0
    for _ in range(3):
        begin = perf_counter()
        for _ in range(draws):
            memory.draw()
        best = max(best, draws / (perf_counter() - begin))
    return {"adds": adds, "batches": best, "bytes": memory.bytes()}


def _steps(kind: str, rng: np.random.Generator) -> Any:
    """Transitions of episodes of 1,000 steps, pictures stacked."""
    number = 0
    pictures = rng.integers(0, 256, (64, 84, 84), np.uint8) if "atari" in kind else None
    vectors = rng.random((1_000, OBS), np.float32)
    moves = rng.random((1_000, ACTION), np.float32)
    while True:
        ended = number % 1_000 == 999
        if pictures is None:
            obs, then = vectors[number % 1_000], vectors[(number + 1) % 1_000]
            action: Any = moves[number % 1_000]
        else:
            at = np.arange(number, number + 4) % 64
            obs, then, action = pictures[at], pictures[(at + 1) % 64], number % 6
        yield obs, action, 1.0, then, ended
        number += 1


class Memory(ABC):
    """What is measured.

    Args:
        kind: see `KINDS`.
    """

    #: Transitions to fill it with before measuring, one by one.
    fill = CAPACITY

    @abstractmethod
    def add(self, obs: Any, action: Any, reward: float, then: Any, ended: bool) -> None:
        """Store a transition."""

    @abstractmethod
    def draw(self) -> None:
        """Draw a minibatch; if prioritized, hand priorities back."""

    @abstractmethod
    def bytes(self) -> float:
        """Of a transition."""


class Coach(Memory):
    """Coach's replay, in fragments of one step."""

    fill = 0

    def __init__(self, kind: str) -> None:
        from coach.core.spec import Spec
        from coach.memories.replay import Replay
        from coach.memories.samplers.prioritized import Prioritized
        from coach.memories.samplers.uniform import Uniform

        self.prioritized = "prioritized" in kind
        pictures, prioritized = "atari" in kind, "prioritized" in kind
        spec = Spec(SCREEN, BUTTONS) if pictures else Spec(BOX, ACTIONS)
        self.memory = Replay(
            spec,
            1,
            capacity=200_000 if pictures else CAPACITY,
            batch_size=ATARI_BATCH if pictures else BATCH,
            warmup=0,
            updates_per_step=1.0,  # more are owed than will be drawn
            sampler=Prioritized() if prioritized else Uniform(),
        )
        self.one = empty_fragment(spec, 1)
        self.arrays = {
            name: getattr(self.one, name).numpy()
            for name in ("obs", "action", "reward", "discount", "next_obs", "boundary")
        }
        if not pictures:
            rng = np.random.default_rng(0)
            many = empty_fragment(spec, 1_000)
            many.obs[:] = torch.from_numpy(rng.random((1_000, 1, OBS), np.float32))
            many.boundary[-1] = True
            for _ in range(CAPACITY // 1_000):
                self.memory.write(many)
        self.stream: Any = None

    def add(self, obs: Any, action: Any, reward: float, then: Any, ended: bool) -> None:
        row = self.arrays
        row["obs"][0, 0], row["next_obs"][0, 0] = obs, then
        row["action"][0, 0], row["reward"][0, 0] = action, reward
        row["discount"][0, 0], row["boundary"][0, 0] = not ended, ended
        self.memory.write(self.one)

    def draw(self) -> None:
        if self.stream is None:
            self.stream = self.memory.batches(lambda batch: batch)
        batch = next(self.stream)
        if self.prioritized:
            self.memory.feedback(batch, batch.reward.abs() + 0.1)

    def bytes(self) -> float:
        held = self.memory.stripes
        tables = held.finals.table.nbytes + getattr(held.ring, "older", held.finals).table.nbytes
        rows = int(held.counts.sum())
        return self.memory.nbytes / held.size + tables / rows


def empty_fragment(spec: Any, steps: int) -> Any:
    """A fragment ``[steps, 1]`` of zeros; imported late, as peers' interpreters lack Coach."""
    from coach.core.batch import Batch
    from coach.core.layout import action_layout, allocate, observation_layout

    layout = observation_layout(spec.observation)
    return Batch(
        obs=allocate(layout, steps, 1),
        action=allocate(action_layout(spec.action), steps, 1),
        reward=torch.zeros(steps, 1),
        discount=torch.ones(steps, 1),
        next_obs=allocate(layout, steps, 1),
        boundary=torch.zeros(steps, 1, dtype=torch.bool),
        env_ids=torch.arange(1),
    )


class WholeStacks(Coach):
    """Coach's replay with the same sampler, but every stack of pictures stored whole."""

    def __init__(self, kind: str) -> None:
        from coach.memories import observations, stripes

        def whole(layout: Any, n: int, rows: int, *_: Any, zeros: Any = None) -> Any:
            zeros = zeros or observations.untouched_zeros
            return observations.PlainRows(layout[0], layout[1], n, rows, zeros)

        stripes.ring_for = whole  # type: ignore[assignment]
        super().__init__(kind)

    def bytes(self) -> float:
        held = self.memory.stripes
        return (self.memory.nbytes - held.observation_bytes + held.ring.nbytes) / held.size


class Arrays(Memory):
    """What anyone would write: observations and next observations whole, drawn uniformly."""

    def __init__(self, kind: str) -> None:
        shape = (PICTURES + 2_000, *SCREEN.shape)  # all that is ever added
        self.obs, self.then = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        self.rest = np.empty((len(self.obs), 3), np.float32)
        self.count, self.rng = 0, np.random.default_rng(0)

    def add(self, obs: Any, action: Any, reward: float, then: Any, ended: bool) -> None:
        self.obs[self.count], self.then[self.count] = obs, then
        self.rest[self.count] = action, reward, ended
        self.count += 1

    def draw(self) -> None:
        index = self.rng.integers(self.count, size=ATARI_BATCH)
        for array in (self.obs, self.then, self.rest):
            torch.from_numpy(array[index])

    def bytes(self) -> float:
        return float(sum(array.nbytes for array in (self.obs, self.then, self.rest))) / len(
            self.obs
        )


class StableBaselines3(Memory):
    """Its replay buffer, in the form that stores every observation once."""

    def __init__(self, kind: str) -> None:
        from stable_baselines3.common.buffers import ReplayBuffer

        self.batch = ATARI_BATCH if kind == "atari" else BATCH
        self.buffer = ReplayBuffer(
            200_000 if kind == "atari" else CAPACITY,
            SCREEN if kind == "atari" else BOX,
            BUTTONS if kind == "atari" else ACTIONS,
            device="cpu",
            optimize_memory_usage=kind == "atari",
            handle_timeout_termination=False,
        )

    def add(self, obs: Any, action: Any, reward: float, then: Any, ended: bool) -> None:
        done = np.array([ended])
        self.buffer.add(obs[None], then[None], np.array([action]), np.array([reward]), done, [{}])

    def draw(self) -> None:
        self.buffer.sample(self.batch)

    def bytes(self) -> float:
        arrays = [v for v in vars(self.buffer).values() if isinstance(v, np.ndarray)]
        return sum(array.nbytes for array in arrays) / self.buffer.buffer_size


class Cpprb(Memory):
    """cpprb's buffers."""

    def __init__(self, kind: str) -> None:
        import cpprb

        self.prioritized = kind == "prioritized"
        entries = {"obs": {"shape": (OBS,)}, "act": {"shape": (ACTION,)}, "rew": {}, "done": {}}
        kinds = cpprb.PrioritizedReplayBuffer if self.prioritized else cpprb.ReplayBuffer
        self.buffer = kinds(CAPACITY, entries, next_of="obs")

    def add(self, obs: Any, action: Any, reward: float, then: Any, ended: bool) -> None:
        self.buffer.add(obs=obs, act=action, rew=reward, next_obs=then, done=ended)
        if ended:
            self.buffer.on_episode_end()

    def draw(self) -> None:
        drawn = self.buffer.sample(BATCH)
        if self.prioritized:
            self.buffer.update_priorities(drawn["indexes"], np.abs(drawn["rew"]).ravel() + 0.1)

    def bytes(self) -> float:
        return float("nan")  # it does not tell


class Tianshou(Memory):
    """Tianshou's buffers."""

    def __init__(self, kind: str) -> None:
        from tianshou.data import Batch, PrioritizedReplayBuffer, ReplayBuffer

        self.prioritized, self.make = kind == "prioritized", Batch
        self.buffer: Any = (
            PrioritizedReplayBuffer(CAPACITY, alpha=0.6, beta=0.4)
            if self.prioritized
            else ReplayBuffer(CAPACITY)
        )

    def add(self, obs: Any, action: Any, reward: float, then: Any, ended: bool) -> None:
        step = {"obs": obs, "act": action, "rew": reward, "obs_next": then, "info": {}}
        self.buffer.add(self.make(**step, terminated=ended, truncated=False))

    def draw(self) -> None:
        drawn, index = self.buffer.sample(BATCH)
        if self.prioritized:
            self.buffer.update_weight(index, np.abs(drawn.rew) + 0.1)

    def bytes(self) -> float:
        return float("nan")


if __name__ == "__main__":
    sys.exit(main())
