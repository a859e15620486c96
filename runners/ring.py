"""Fragments of many actors in shared memory: the source of the `async` mode.

Every actor owns a few slots, allocated once, and fills whichever is free; only slot numbers
travel. The learner takes filled slots in the order in which they come and hands each back when it
has published the weights that were learned from it. So an actor is never further ahead than its
slots, the learner never waits for a particular actor, and one actor with one slot runs in
lockstep with the learner, which is the `single` mode in two processes.
"""

from __future__ import annotations

import selectors
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, perf_counter
from typing import Any

import torch
from coach.core.agent import Agent
from coach.core.batch import Batch, map_tree
from coach.core.context import Context
from coach.core.errors import InterruptedRunError
from coach.core.layout import Zeros, allocate, observation_layout
from coach.core.source import Report, Source, Standing
from coach.core.spec import Spec
from coach.environments.making import EnvironmentSettings
from coach.runners.actor_process import FILLED, FREE, ActorWork, Hosting, act_for_learner
from coach.runners.board import WeightBoard
from coach.runners.channel import ChannelClosedError, Message
from coach.runners.clock import Clock
from coach.runners.notices import unpacked
from coach.runners.shared import share
from coach.runners.slot import Slot
from coach.runners.storage import freeze
from coach.runners.tally import Tally
from coach.runners.worker import (
    START_SECONDS,
    Tolerance,
    Worker,
    WorkerKind,
    failure_in,
    spread,
    stop_all,
)
from torch import Tensor, nn

_LOOK_SECONDS = 0.25  # between two looks for workers that hang


@dataclass(frozen=True)
class Actors:
    """What all actors have in common.

    Args:
        environment: settings of one environment.
        spec: of one environment.
        agent: plain settings of the agent.
        num_envs: environments, over all actors.
        workers: actors.
        slots: fragments that each may be ahead of the learner; 1 is lockstep.
        fragment_length: steps per fragment.
        kind: process or thread.
        seeds: of the environments and of each actor's random stream.
        timeout: seconds after which a silent actor counts as hung.
        plugins: imported by actor processes.
        free_learner: whether the learner makes more updates than are owed while it waits.
        device: where actors act.
        hosting: who steps the environments, if the actor does not.
        record: act from recordings.
    """

    environment: EnvironmentSettings
    spec: Spec
    agent: dict[str, Any]
    num_envs: int
    workers: int
    slots: int
    fragment_length: int
    kind: WorkerKind
    seeds: tuple[int, list[int]]
    timeout: float
    plugins: list[str]
    free_learner: bool = False
    device: str = "cpu"
    hosting: Hosting | None = None
    record: bool = True


class RingSource(Source):
    """Takes fragments from free-running actors; see `coach.core.source.Source`.

    Args:
        actors: what they are.
        agent: the learner's; its policy is published.
        tolerance: how many failures are put up with.
        clock: of the run; nobody waits for fragments once it is to stop.
    """

    def __init__(self, actors: Actors, agent: Agent, tolerance: Tolerance, clock: Clock) -> None:
        self.actors, self.agent, self.tolerance, self.clock = actors, agent, tolerance, clock
        self.shares = spread(actors.num_envs, actors.workers)
        self.workers = [
            Worker(n, actors.kind, act_for_learner, actors.plugins) for n in range(actors.workers)
        ]
        self.board = WeightBoard(agent.policy)
        self.version = 0
        self.board.publish(0)
        # Running statistics change without an update.
        self._refreshed = any(True for _ in agent.policy.buffers())
        self._beats_block = share(lambda zeros: zeros((actors.workers,), torch.int64))
        self._beats = self._beats_block.again().zeros((actors.workers,), torch.int64).numpy()
        self.env_steps = 0
        self.discarded = 0
        self.episode = [-1] * actors.num_envs
        self._acted = _example(agent, actors.spec)
        self._blocks = [share(partial(self._slots, s)) for s in self.shares]
        self._slots_of = [
            self._slots(s, b.again().zeros) for s, b in zip(self.shares, self._blocks)
        ]
        # (worker, slot), oldest first
        self._filled: deque[tuple[int, int]] = deque()
        self._taken: tuple[int, int] | None = None
        # Slots whose fragment does not go on where that worker's last one ended.
        self._anew: set[tuple[int, int]] = set()
        self._gap = [False] * actors.workers
        self._selector = selectors.DefaultSelector()
        self._heard = [0.0] * actors.workers  # when each worker last gave a sign of life
        self._beat = [0] * actors.workers  # and how many steps it had counted then
        self._looked = 0.0
        self._owes = [0] * actors.workers  # slots that each worker has to fill
        self._starting = [True] * actors.workers
        self._fresh = [False] * actors.workers  # whether a worker's next fragment begins anew
        self._running = False
        self._report = Report()
        self._tally = Tally(actors.workers)

    def collect(self) -> Batch:
        """The oldest filled fragment; its tensors are valid until the next `publish`."""
        if not self._running:
            self._running = True
            for worker in self.workers:
                self._start(worker)
        begin = perf_counter()
        while True:
            while not self._filled:
                self._listen(timeout=0.5)
                if self.clock.stop and not self._filled:
                    raise InterruptedRunError
            self._listen(timeout=0.0)
            number, which = self._filled.popleft()
            slot = self._slots_of[number][which]
            self._taken = (number, which)
            lag = self.version - int(slot.version[0])
            limit = self.agent.max_policy_lag
            if limit is None or lag <= limit:
                break
            self.discarded += 1
            self._gap[number] = True
            self._anew.discard((number, which))
            self._hand_back()
        waited = perf_counter() - begin
        self._tally.note(number, slot, lag, waited, len(self._filled))
        continues = not self._gap[number] and (number, which) not in self._anew
        continues &= not slot.dropped[0]
        self._gap[number] = False
        self._anew.discard((number, which))
        batch = replace(slot.fragment.batch, version=int(slot.version[0]), continues=continues)
        self.env_steps += batch.steps
        self._report.episodes += slot.read_episodes()
        return batch

    def idle(self) -> bool:
        """Whether the learner runs free and no fragment waits."""
        if not self.actors.free_learner or self.clock.stop:
            return False
        self._listen(timeout=0.0)
        return not self._filled

    def publish(self, policy: nn.Module, version: int) -> None:
        """Let actors use new weights, and the taken slot."""
        if version != self.version or self._refreshed:
            self.board.publish(version)
            self.version = version
        self._hand_back()

    def report(self) -> Report:
        """Episodes and timings since the last call."""
        report, self._report = self._report, Report()
        report.seconds = self._tally.take_waiting()
        return report

    def standing(self) -> Standing:
        """Per worker: speed, lag, waiting, restarts; for all: queue and waiting."""
        return self._tally.take(self.tolerance.of, self.discarded)

    def timed(self) -> list[tuple[Any, str, str]]:
        """Waiting is all that is left to do here."""
        return [(self, "collect", "waiting for actors")]

    def elsewhere(self) -> dict[str, float]:
        """What the actors spent their time with."""
        return self._tally.totals()

    def state_dict(self) -> dict[str, Any]:
        """Steps taken and the number of every environment's episode; fragments in flight go."""
        return {"step": self.env_steps, "episode": list(self.episode)}

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`, with fresh episodes."""
        self.env_steps = state["step"]
        # A checkpoint of another mode counts episodes too; its unfinished ones are given up.
        self.episode = list(state["episode" if "episode" in state else "envs.episode"])
        self._fresh = [True] * self.actors.workers

    def close(self) -> None:
        """End the actors."""
        if self._running:
            stop_all(self.workers)
        self._selector.close()

    def _slots(self, part: range, zeros: Zeros) -> list[Slot]:
        ids = torch.arange(part.start, part.stop)
        count = len(part)
        acted = {n: t.new_empty(count, *t.shape[1:]) for n, t in self._acted.items()}
        state = self.agent.initial_state(count)
        return [
            Slot(self.actors.spec, self.actors.fragment_length, ids, acted, state, zeros)
            for _ in range(self.actors.slots)
        ]

    def _start(self, worker: Worker) -> None:
        number = worker.number
        part = self.shares[number]
        actors = self.actors
        seeds = actors.seeds
        work = ActorWork(
            actors.environment,
            actors.spec,
            actors.agent,
            part,
            actors.num_envs,
            actors.slots,
            actors.fragment_length,
            seeds[0],
            # Streams of restarted and resumed actors begin anew, elsewhere.
            seeds[1][number] + self.env_steps + self.tolerance.restarts,
            [self.episode[i] for i in part],
            freeze({n: t.new_zeros(len(part), *t.shape[1:]) for n, t in self._acted.items()}),
            self._blocks[number].again(),
            self.board.block.again(),
            self._beats_block.again(),
            number,
            actors.workers,
            actors.device,
            actors.hosting,
            actors.record,
        )
        worker.start(work)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        self._heard[number], self._starting[number] = monotonic(), True
        self._owes[number] = 0
        for which in range(actors.slots):
            if (number, which) not in self._filled and self._taken != (number, which):
                self._send_free(number, which)

    def _send_free(self, number: int, which: int) -> None:
        if not self._owes[number]:
            self._heard[number] = monotonic()
        self._owes[number] += 1
        try:
            self.workers[number].channel.send(FREE, which, self.env_steps)
        except ChannelClosedError:
            return  # noticed and mended where the learner listens

    def _hand_back(self) -> None:
        if self._taken is not None:
            taken, self._taken = self._taken, None
            self._send_free(*taken)

    def _listen(self, timeout: float) -> None:
        """Take in what actors say; mend those that have failed."""
        for key, _ in self._selector.select(timeout):
            worker: Worker = key.data
            try:
                self._take(worker, worker.channel.receive(self.actors.timeout))
            except ChannelClosedError:
                self._restart(worker, worker.death())
            except TimeoutError:
                self._restart(worker, "it broke off in the middle of a message")
        self._find_hung()

    def _take(self, worker: Worker, message: Message) -> None:
        failure = failure_in(message)
        if failure is not None:
            self._restart(worker, failure)
            return
        assert message.kind == FILLED
        number, which = worker.number, message.value
        self._report.notices += unpacked(message.data)
        self._report.dropped += int(self._slots_of[number][which].dropped[0])
        self._heard[number], self._starting[number] = monotonic(), False
        self._owes[number] -= 1
        if self._fresh[number]:
            self._fresh[number] = False
            self._anew.add((number, which))
        for i, episode in zip(self.shares[number], self._slots_of[number][which].episode.tolist()):
            self.episode[i] = episode
        self._filled.append((number, which))

    def _find_hung(self) -> None:
        """Mend workers that owe something and have neither spoken nor taken a step for too long."""
        now = monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for worker in self.workers:
            number, beat = worker.number, int(self._beats[worker.number])
            if beat != self._beat[number]:
                self._beat[number], self._heard[number] = beat, now
                self._starting[number] = False
            silence = now - self._heard[number]
            if not self._owes[number]:
                continue
            if self._starting[number] and silence > START_SECONDS:
                self._restart(worker, f"it has not started within {START_SECONDS:g} s")
            elif not self._starting[number] and silence > self.actors.timeout:
                limit = self.actors.timeout
                self._restart(worker, f"it has taken no step for {limit:g} s (run.worker_timeout)")

    def _restart(self, worker: Worker, failure: str) -> None:
        self._selector.unregister(worker.channel)
        self.tolerance.restart(worker, failure)
        self._fresh[worker.number] = True
        self._start(worker)


def _example(agent: Agent, spec: Spec) -> dict[str, Tensor]:
    """What the agent records with an action, for one environment."""
    device = next(agent.policy.parameters()).device
    obs = allocate(observation_layout(spec.observation), 1)
    ctx = Context(0, torch.Generator(device).manual_seed(0), torch.arange(1), num_envs=1)
    state = agent.initial_state(1)
    with torch.inference_mode():
        acted = agent.act(map_tree(lambda t: t.to(device), obs), state, ctx)
    return {name: torch.empty(t.shape, dtype=t.dtype) for name, t in acted.extras.items()}
