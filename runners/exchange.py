"""What workers that exchange gradients have in common.

Each runs the whole training loop, with environments, a memory and a copy of the agent of its own,
built from the same preset. What they share differs:

- mode sync: gradients are averaged over all workers before every step (`torch.distributed`), so
  all of them hold the same weights. The run's own process is worker 0.
- mode async: every worker steps weights of its own; now and then it adds what its steps changed to
  weights that all share, without a lock (Hogwild, arXiv:1106.5730), and goes on from these, as
  in Downpour SGD (Dean et al. 2012, Large Scale Distributed Deep Networks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from coach.core.device import COLLECTIVES
from coach.core.flat import FlatParameters
from coach.core.layout import Zeros
from coach.core.optimizer import Stepper
from coach.runners.clock import Clock
from coach.runners.ledger import Ledger
from coach.runners.shared import SharedBlock
from coach.runners.weights import check_same, layout_digest
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


class Hogwild:
    """Steps this worker's own weights, and now and then makes them one with all workers'.

    Steps in shared memory itself would have every worker read again from the others' caches what
    each update needs. No exchange is locked: of two at the same instant some numbers are lost.
    What optimisers remember is each worker's own.

    Args:
        groups: what this worker steps, by name.
        zeros: makes the shared weights.
        every: steps between two exchanges.
    """

    def __init__(self, groups: Mapping[str, FlatParameters], zeros: Zeros, every: int) -> None:
        self.every = every
        self._layout, shared = _shared_layout(groups, zeros)
        self._digest = groups_digest(groups)
        self._steps: dict[FlatParameters, int] = {}
        self._shared: dict[FlatParameters, Tensor] = {}
        self._known: dict[FlatParameters, Tensor] = {}  # the shared weights as last seen
        for name, group in groups.items():
            self._steps[group] = 0
            self._shared[group] = shared[name]
            self._known[group] = group.vector.data.clone()

    def __call__(
        self, stepper: Stepper, group: FlatParameters, lr: float, max_norm: float | None
    ) -> Tensor | None:
        square = group.clip(max_norm)
        stepper.step(lr)
        self._steps[group] += 1
        if self._steps[group] % self.every == 0:
            self._exchange(group)
        return square

    def lead(self) -> None:
        """Begin with this worker's weights as those that all share."""
        self._layout[0] = self._digest
        for group, shared in self._shared.items():
            shared.copy_(group.vector.data)
            self._known[group].copy_(group.vector.data)

    def follow(self) -> None:
        """Begin with the weights that all share, whatever this worker had.

        Raises:
            TransferError: the worker that led has weights of another layout.
        """
        check_same(int(self._layout[0]), self._digest)
        for group, shared in self._shared.items():
            group.vector.data.copy_(shared)
            self._known[group].copy_(group.vector.data)

    def exchange(self) -> None:
        """Hand over what this worker has changed since, and take what the others have."""
        for group in self._shared:
            self._exchange(group)

    def _exchange(self, group: FlatParameters) -> None:
        mine, shared, known = group.vector.data, self._shared[group], self._known[group]
        shared.add_(torch.sub(mine, known, out=known))
        mine.copy_(shared)
        known.copy_(mine)  # not from what is shared, which may have moved on


def shared_size(groups: Mapping[str, FlatParameters], zeros: Zeros) -> None:
    """Ask ``zeros`` for what `Hogwild` will ask for."""
    _shared_layout(groups, zeros)


def _shared_layout(
    groups: Mapping[str, FlatParameters], zeros: Zeros
) -> tuple[Tensor, dict[str, Tensor]]:
    """The digest of the layout, and the vector of each group, in the order of their names."""
    layout = zeros((1,), torch.int64)
    vectors = {name: group.vector for name, group in sorted(groups.items())}
    return layout, {n: zeros(tuple(vector.shape), vector.dtype) for n, vector in vectors.items()}


def groups_digest(groups: Mapping[str, FlatParameters]) -> int:
    """A number that stands for the names of groups, and the shapes of their parameters in order."""
    return layout_digest(
        {
            f"{name}.{number}": parameter
            for name, group in groups.items()
            for number, parameter in enumerate(group.parameters)
        }
    )


def join_group(meeting: str, portion: Portion, device: torch.device, patience: float) -> None:
    """Meet the other workers; returns once all of them are there.

    Args:
        meeting: a file that all can reach; it must not exist before.
        portion: which worker this is.
        device: where gradients are.
        patience: seconds after which a silent worker counts as hung.
    """
    distributed.init_process_group(
        COLLECTIVES[device.type],
        init_method=f"file://{meeting}",
        rank=portion.number,
        world_size=portion.workers,
        timeout=timedelta(seconds=patience),
    )


def check_alike(groups: Mapping[str, FlatParameters], device: torch.device) -> None:
    """Make sure that gradients of all workers have one layout; every worker takes part.

    Raises:
        TransferError: they have not.
    """
    mine = groups_digest(groups) // 2  # so that its negative has room too
    extremes = torch.tensor([mine, -mine], device=device)
    distributed.all_reduce(extremes, distributed.ReduceOp.MAX)
    largest, smallest = extremes.tolist()
    check_same(largest, -smallest)


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
        parameters: block of the shared weights; ``None`` where workers average.
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
