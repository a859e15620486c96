"""What workers that exchange gradients have in common.

Each runs the whole training loop, with environments, a memory and a copy of the agent of its own,
built from the same preset. What they share differs:

- mode sync: gradients are averaged over all workers before every step (`torch.distributed`), so
  all of them hold the same weights. The run's own process is worker 0.
- mode async: parameters and the optimiser's slots lie in memory that all workers write without a
  lock (Hogwild, arXiv:1106.5730), as in A3C (arXiv:1602.01783).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from coach.core.flat import FlatParameters
from coach.core.layout import Zeros
from coach.core.learner import Learner
from coach.core.optimizer import Stepper
from coach.runners.clock import Clock
from coach.runners.ledger import Ledger
from coach.runners.shared import SharedBlock
from coach.runners.worker import spread
from torch import Tensor, distributed


@dataclass(frozen=True)
class Portion:
    """Which part of a run one worker has.

    Args:
        number: of the worker.
        workers: how many there are.
    """

    number: int = 0
    workers: int = 1

    def share(self, num_envs: int) -> range:
        """Global ids of its environments."""
        return spread(num_envs, self.workers)[self.number]

    def stream(self, purpose: str) -> str:
        """Name of its random stream for a purpose; worker 0 has that of mode single."""
        return f"{purpose} {self.number}" if self.number else purpose


@dataclass
class SharedClock(Clock):
    """A clock of workers that run freely: it counts the steps of all of them.

    Args:
        number: of this worker.
    """

    number: int = 0
    _ledger: Ledger | None = None
    _base: int = 0

    @property
    def base(self) -> int:
        """Steps taken before this start of the run."""
        return self._base

    def begin(self, env_steps: int) -> None:
        super().begin(env_steps)
        self._base = env_steps

    def count_in(self, ledger: Ledger) -> None:
        """Share the counts of ``ledger`` from now on."""
        self._ledger = ledger

    def advance(self, steps: int) -> None:
        if self._ledger is None:
            super().advance(steps)
            return
        self._ledger.steps[self.number] += steps
        self.env_steps = self._base + int(self._ledger.steps.sum())

    @property
    def finished(self) -> bool:
        if self._ledger is None:
            return super().finished
        self.advance(0)
        if super().finished:
            self._ledger.stop[0] = 1
        return bool(self._ledger.stop[0])


@dataclass
class CommonClock(Clock):
    """A clock of workers that take every update together, and so must end together.

    Args:
        workers: how many there are; each takes as many steps as the others.
    """

    workers: int = 1
    _agreed: bool = False

    def advance(self, steps: int) -> None:
        super().advance(steps * self.workers)

    @property
    def finished(self) -> bool:
        return self._agreed or self.env_steps >= self.limit

    def agree(self, stop: bool) -> None:
        self._agreed = self._agreed or stop


class Averaged:
    """Averages gradients over all workers, then steps; see `coach.core.apply.Apply`.

    Args:
        workers: how many there are.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(
        self, stepper: Stepper, group: FlatParameters, lr: float, max_norm: float | None
    ) -> Tensor | None:
        distributed.all_reduce(group.gradient)
        group.gradient.div_(self.workers)
        square = group.clip(max_norm)
        stepper.step(lr)
        return square


def share_parameters(learner: Learner, zeros: Zeros, keep: bool) -> None:
    """Move parameters and slots into shared memory; ``keep`` their values or take those there."""
    for name, group in learner.groups.items():
        vector = zeros(tuple(group.vector.shape), group.vector.dtype)
        if keep:
            vector.copy_(group.vector.data)
        group.move(vector)
        learner.steppers[name].move(vector, zeros, keep)
    for recorder in learner.recorders:
        recorder.compares = False  # others change the weights between a replay and its comparison


def shared_size(learner: Learner, zeros: Zeros) -> None:
    """Ask ``zeros`` for what `share_parameters` will ask for, and leave everything as it is."""
    for name, group in learner.groups.items():
        for tensor in (group.vector, *learner.steppers[name].slots.values()):
            zeros(tuple(tensor.shape), tensor.dtype)


def join_group(meeting: str, portion: Portion, device: torch.device, patience: float) -> None:
    """Meet the other workers; returns once all of them are there.

    Args:
        meeting: a file that all can reach; it must not exist before.
        portion: which worker this is.
        device: where gradients are.
        patience: seconds after which a silent worker counts as hung.
    """
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=portion.number,
        world_size=portion.workers,
        timeout=timedelta(seconds=patience),
    )


def agree_on(flags: int, device: torch.device) -> int:
    """The flags that worker 0 has set; returns when every worker has come to this point."""
    shared = torch.tensor([flags], device=device)
    distributed.all_reduce(shared)
    return int(shared)


@dataclass
class GradientWork:
    """What one worker needs.

    Args:
        build: makes an experiment of the preset's settings.
        settings: the preset.
        portion: which part of the run is its own.
        meeting: file through which averaging workers find each other; empty where none average.
        ledger: block of the counts.
        parameters: block of the shared parameters; ``None`` where workers average.
        base: environment steps taken before this start of the run.
        learner: frozen state of worker 0's learner: weights, targets, slots, version.
        state: frozen, of its own streams, memory and environments, to go on from; may be empty.
        repeat: bring unfinished episodes back.
        folder: of the run.
    """

    build: Callable[..., Any]
    settings: dict[str, Any]
    portion: Portion
    meeting: str
    ledger: SharedBlock
    parameters: SharedBlock | None
    base: int
    learner: bytes
    state: bytes
    repeat: bool
    folder: Path
