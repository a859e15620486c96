"""Environments spread over workers that step together: the source of the `sync` mode."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from coach.core.batch import map_tree
from coach.core.errors import CoachError
from coach.core.layout import Zeros, action_layout, assign, named_leaves
from coach.core.source import Episode, Notice, Standing, WorkerStanding
from coach.core.spec import Spec
from coach.environments.arrays import EnvArrays
from coach.environments.history import History, can_repeat, share
from coach.environments.making import EnvironmentSettings
from coach.environments.vector import Step, VectorEnv
from coach.runners.channel import Channel, ChannelClosedError
from coach.runners.notices import packed, unpacked
from coach.runners.shared import SharedBlock
from coach.runners.shared import share as share_memory
from coach.runners.storage import freeze, thaw
from coach.runners.tally import advice_on
from coach.runners.worker import (
    START_SECONDS,
    Tolerance,
    Worker,
    WorkerKind,
    failure_in,
    spread,
    stop_all,
)
from numpy.typing import NDArray

STEP, DONE = b"s", b"d"


class LockstepEnvs(VectorEnv):
    """``num_envs`` environments in ``workers`` processes or threads; see `VectorEnv`.

    Actions and outcomes are shared arrays; a byte each way says whose turn it is. A worker that
    fails is started again with fresh episodes: its environments then report a step that was cut
    off where it began, with reward 0.

    Args:
        environment: settings of one environment.
        spec: of one environment.
        num_envs: how many, over all workers.
        workers: how many.
        kind: process or thread.
        seed: of the run; episodes derive theirs from it.
        tolerance: how many failures are put up with.
        timeout: seconds after which a silent worker counts as hung.
        plugins: imported by worker processes.
    """

    def __init__(
        self,
        environment: EnvironmentSettings,
        spec: Spec,
        num_envs: int,
        workers: int,
        kind: WorkerKind,
        seed: int,
        tolerance: Tolerance,
        timeout: float = 60.0,
        plugins: list[str] | None = None,
    ) -> None:
        self.spec, self.num_envs = spec, num_envs
        self.environment, self.seed, self.timeout = environment, seed, timeout
        self.tolerance = tolerance
        self.shares = spread(num_envs, workers)
        self.workers = [Worker(n, kind, serve_envs, plugins or []) for n in range(workers)]
        sizes = (spec, num_envs, workers)
        self._block = share_memory(lambda zeros: _Arrays.allocate(*sizes, zeros))
        self._arrays = _Arrays.allocate(*sizes, self._block.again().zeros)
        self._before = EnvArrays.allocate(spec, num_envs).obs
        self._history = History(num_envs, seed)
        self._notices: list[Notice] = []
        self._mark, self._steps, self._waited = perf_counter(), 0, 0.0
        self._busy = self._arrays.busy.copy()

    @property
    def episode(self) -> list[int]:
        """Number of every environment's episode, from 0."""
        return self._history.episode

    def reset(self) -> Any:
        """Begin an episode in every environment; returns the observations."""
        for i in range(self.num_envs):
            self._history.begin(i)
        self._start({"episode": [number - 1 for number in self._history.episode]}, repeat=False)
        return self._arrays.envs.obs

    def step(self, action: NDArray[Any]) -> Step:
        """Take one action per environment.

        Raises:
            BadValueError: one of them returned something that cannot be used.
            WorkerError: workers failed more often than the run tolerates.
        """
        arrays, history = self._arrays.envs, self._history
        self._arrays.action[...] = action
        assign(self._before, ..., arrays.obs)
        begin, failures = perf_counter(), dict[Worker, str]()
        for worker in self.workers:
            try:
                worker.channel.send(STEP)
            except ChannelClosedError:
                failures[worker] = ""
        history.record(action)  # while they are at work
        for worker in self.workers:
            failure = self._wait(worker, self.timeout, "run.worker_timeout")
            if failure is not None:
                failures[worker] = failure
        self._waited += perf_counter() - begin
        self._steps += 1
        lost = [self._recover(worker, failure) for worker, failure in failures.items()]
        episodes, dropped = [], 0
        for i in np.flatnonzero(arrays.terminated | arrays.truncated).tolist():
            if any(i in share for share in lost):
                continue
            if arrays.dropped[i]:
                dropped += 1
            else:
                episodes.append(Episode(i, float(arrays.value[i]), history.length(i)))
            history.begin(i, bool(arrays.continues[i]))
            history.episode[i] = int(self._arrays.episode[i])
        return arrays.step(episodes, dropped)

    def notices(self) -> list[Notice]:
        """What workers had to say about their environments since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def standing(self) -> Standing:
        """How the workers did since the last call."""
        now = perf_counter()
        wall, busy = max(now - self._mark, 1e-9), self._arrays.busy - self._busy
        waits = self._waited / wall
        workers = [
            WorkerStanding(
                number,
                self._steps * len(part) / wall,
                float(np.clip(1 - busy[number] / wall, 0.0, 1.0)),
                restarts=self.tolerance.of[number],
            )
            for number, part in enumerate(self.shares)
        ]
        self._mark, self._steps, self._waited = now, 0, 0.0
        self._busy = self._arrays.busy.copy()
        idle = float(np.mean([worker.waits for worker in workers if worker.waits is not None]))
        return Standing(workers, waits, advice=advice_on(waits, idle))

    def state_dict(self) -> dict[str, Any]:
        """The history of unfinished episodes, and the observations they have come to."""
        leaves = named_leaves(self._arrays.envs.obs, "obs").items()
        return self._history.state_dict() | {k: torch.from_numpy(v.copy()) for k, v in leaves}

    def load_state_dict(self, state: dict[str, Any], repeat: bool = True) -> Any:
        """Repeat every unfinished episode, or begin the next ones; returns the observations.

        Raises:
            CoachError: an environment did not come back to the same observation.
        """
        repeat = repeat and can_repeat(state)
        if repeat:
            self._history.load_state_dict(state)
        else:
            self._history.episode = [number + 1 for number in state["episode"]]
        self._start(state, repeat)
        return self._arrays.envs.obs

    def close(self) -> None:
        """End the workers."""
        stop_all(self.workers)

    def _start(self, state: dict[str, Any], repeat: bool) -> None:
        for worker, part in zip(self.workers, self.shares):
            self._start_one(worker, part, state, repeat)
        for worker in self.workers:
            failure = self._wait(worker, START_SECONDS)
            if failure is not None:
                raise CoachError(f"Worker {worker.number} did not start: {failure}")
        self._history.episode = self._arrays.episode.tolist()

    def _start_one(self, worker: Worker, part: range, state: dict[str, Any], repeat: bool) -> None:
        mine = share(state, part.start, part.stop)
        leaves = named_leaves(map_tree(lambda a: a, self._arrays.envs.obs), "obs")
        mine |= {k: state[k][part.start : part.stop] for k in leaves if repeat and k in state}
        setup = EnvWork(
            self.environment,
            self.spec,
            self.seed,
            part,
            self.num_envs,
            freeze(mine),
            repeat,
            self._block.again(),
            len(self.workers),
            worker.number,
        )
        worker.start(setup)

    def _wait(self, worker: Worker, timeout: float, setting: str = "to start") -> str | None:
        """Wait until a worker is done; in words what went wrong, if something did."""
        try:
            message = worker.channel.receive(timeout)
        except ChannelClosedError:
            return worker.death()
        except TimeoutError:
            return f"it has not answered for {timeout:g} s ({setting})"
        self._notices += unpacked(message.data) if message.kind == DONE else []
        return failure_in(message)

    def _recover(self, worker: Worker, failure: str) -> range:
        """Start a failed worker anew, with a step that was cut off; returns its environments."""
        part = self.shares[worker.number]
        while True:
            self.tolerance.restart(worker, failure)
            for i in part:
                self._history.begin(i)
            fresh = [number - 1 for number in self._history.episode]
            self._start_one(worker, part, {"episode": fresh}, repeat=False)
            again = self._wait(worker, START_SECONDS)
            if again is None:
                break
            failure = again
        arrays = self._arrays.envs
        mine = slice(part.start, part.stop)
        assign(arrays.next_obs, mine, map_tree(lambda a: a[mine], self._before))
        arrays.reward[mine], arrays.terminated[mine], arrays.truncated[mine] = 0.0, False, True
        arrays.dropped[mine] = False
        self._history.episode[mine] = self._arrays.episode[mine].tolist()
        return part


@dataclass
class EnvWork:
    """What a worker needs to host its share of the environments.

    Args:
        environment: settings of one.
        spec: of one.
        seed: of the run.
        share: global ids of the worker's environments.
        num_envs: environments over all workers.
        state: where to go on, frozen; episode numbers at least.
        repeat: bring unfinished episodes back rather than begin the next ones.
        block: actions and outcomes of all environments.
        workers: how many there are.
        number: which of them this is.
    """

    environment: EnvironmentSettings
    spec: Spec
    seed: int
    share: range
    num_envs: int
    state: bytes
    repeat: bool
    block: SharedBlock
    workers: int
    number: int


@dataclass
class _Arrays:
    action: NDArray[Any]
    envs: EnvArrays
    busy: NDArray[np.float64]  # [W] seconds that each worker has spent in its environments
    episode: NDArray[np.int64]  # [N] numbers, some of which are skipped where resets were bad

    @staticmethod
    def allocate(spec: Spec, num_envs: int, workers: int, zeros: Zeros) -> _Arrays:
        shape, dtype = action_layout(spec.action)
        action = zeros((num_envs, *shape), dtype).numpy()
        envs = EnvArrays.allocate(spec, num_envs, zeros)
        busy = zeros((workers,), torch.float64).numpy()
        return _Arrays(action, envs, busy, zeros((num_envs,), torch.int64).numpy())


def serve_envs(channel: Channel, work: EnvWork) -> None:
    """What a worker does: step its environments whenever it is told to."""
    begin, end = work.share.start, work.share.stop
    arrays = _Arrays.allocate(work.spec, work.num_envs, work.workers, work.block.zeros)
    rows = arrays.envs.rows(begin, end)
    envs = work.environment.vector(end - begin, work.seed, begin, arrays=rows)
    try:
        envs.load_state_dict(thaw(work.state), work.repeat)
        numbers = arrays.episode[begin:end]
        numbers[:] = envs.episode
        channel.send(DONE, data=packed(envs.notices()))
        while True:
            channel.receive()
            since = perf_counter()
            step = envs.step(arrays.action[begin:end])
            if step.episodes or step.dropped:
                numbers[:] = envs.episode
            arrays.busy[work.number] += perf_counter() - since
            channel.send(DONE, data=packed(envs.notices()))
    finally:
        envs.close()
