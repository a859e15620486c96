"""Workers that learn for the same weights without waiting: mode async with gradients."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

from coach.core.batch import Batch
from coach.core.errors import BadValueError, NotFiniteError
from coach.core.learner import Learner
from coach.core.source import Report, Source, Standing
from coach.runners.actor import Actor
from coach.runners.channel import ChannelClosedError
from coach.runners.exchange import Hogwild, Portion, SharedClock, shared_size
from coach.runners.gradient_worker import SAVE
from coach.runners.interrupts import GRACE_SECONDS
from coach.runners.partners import Partners, name_of
from coach.runners.shared import share
from coach.runners.worker import START_SECONDS, Worker, WorkerError, in_words
from torch import nn


class HogwildSource(Source):
    """An actor of this process, and partners that learn for the same weights without a lock.

    A partner that fails is replaced; nobody waits for it.

    Args:
        actor: on this process's share of the environments.
        partners: the other workers.
        learner: of this process; what becomes of its gradients is set here.
        clock: counts the steps of all workers.
        every: updates of a worker between two exchanges of weights.
    """

    def __init__(
        self, actor: Actor, partners: Partners, learner: Learner, clock: SharedClock, every: int
    ) -> None:
        self.actor, self.partners, self.learner, self.clock = actor, partners, learner, clock
        clock.count_in(partners.ledger)
        groups = learner.groups
        self._block = share(lambda zeros: shared_size(groups, zeros))
        self.weights = learner.apply = Hogwild(groups, self._block.again().zeros, every)
        self._running = False
        self._repeat = True
        # Signs of life of each worker, when they last came, and whether it is still starting.
        self._progress = [(0, 0.0, True)] * partners.count

    def collect(self) -> Batch:
        """The next fragment of this process's own environments."""
        if not self._running:
            self._running = True
            self.weights.lead()
            for worker in self.partners.workers:
                saved = self.partners.saved.get(name_of(worker), {})
                self._start(worker, saved, self._repeat)
        self._look_after()
        self.actor.ctx.step = self.clock.env_steps
        while True:
            try:
                return self.actor.collect()
            except (BadValueError, NotFiniteError):
                raise
            except Exception as error:  # whatever an environment raises
                self.partners.tolerance.note(0, in_words(error))
                self.actor.begin_anew()

    def publish(self, policy: nn.Module, version: int) -> None:
        """For this process's actor; partners find weights where all leave them."""
        self.actor.publish(policy, version)

    def keep_in(self, folder: Path) -> None:
        """Where partners keep the rows of their memories."""
        self.partners.folder = folder.resolve()

    def report(self) -> Report:
        """Episodes of all workers, timings of this one."""
        report = self.actor.report()
        report.episodes += self.partners.episodes(None)
        dropped, notices = self.partners.notes()
        report.dropped += dropped
        report.notices += notices
        return report

    def standing(self) -> Standing:
        """How the workers did."""
        return self.partners.standing(self.partners.ledger.steps.tolist())

    def timed(self) -> list[tuple[Any, str, str]]:
        """What this process does itself."""
        return self.actor.timed()

    def state_dict(self) -> dict[str, Any]:
        """State of every worker; one that has just failed is left with its episode numbers."""
        return self._with_partners(self.actor.state_dict())

    def given_up(self, env_steps: int) -> dict[str, Any]:
        """This process's fragment was broken off; the partners go on."""
        return self._with_partners(self.actor.given_up(env_steps))

    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """Chunks of the partners' memories."""
        return self.partners.journals()

    def _with_partners(self, state: dict[str, Any]) -> dict[str, Any]:
        # After a signal nobody waits long for a partner whose environment takes its time.
        until = monotonic() + GRACE_SECONDS
        for worker in self.partners.workers if self._running else ():
            try:
                worker.channel.send(SAVE)
                left = max(until - monotonic(), 0.1) if self.clock.interrupted else None
                mine = self.partners.state_of(worker, left)
            except (ChannelClosedError, WorkerError):
                mine = self._fresh(worker)
            self.partners.saved[name_of(worker)] = mine
        if self._running:
            self.weights.exchange()  # the partners have, before they handed over
        return self.partners.saved_into(state)

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`."""
        self.actor.load_state_dict(state, restore_environments)
        self.partners.saved_in(state)
        self._repeat = restore_environments

    def close(self) -> None:
        """End the partners."""
        if self._running:
            self._running = False
            self.partners.stop()
        self.actor.close()

    def _start(self, worker: Worker, state: dict[str, Any], repeat: bool = False) -> None:
        self.partners.start(
            worker,
            self.learner,
            self.clock.base,
            meeting="",
            parameters=self._block.again(),
            state=state,
            repeat=repeat,
        )
        beats = int(self.partners.ledger.beats[worker.number])
        self._progress[worker.number] = (beats, monotonic(), True)

    def _fresh(self, worker: Worker) -> dict[str, Any]:
        part = Portion(worker.number, self.partners.count).share(self.partners.num_envs)
        episode = self.partners.ledger.episode[part.start : part.stop].tolist()
        return {"source/step": self.clock.env_steps, "source/episode": episode}

    def _look_after(self) -> None:
        """Replace partners that have failed."""
        now = monotonic()
        for worker in self.partners.workers:
            failure = self.partners.failure(worker)
            beats = int(self.partners.ledger.beats[worker.number])
            before, since, starting = self._progress[worker.number]
            limit = START_SECONDS if starting else self.partners.timeout
            if failure is None and beats != before:
                self._progress[worker.number] = (beats, now, False)
            elif failure is None and now - since > limit:
                what = "has not started" if starting else "has taken no step (run.worker_timeout)"
                failure = f"it {what} for {limit:g} s"
            if failure is not None:
                self.partners.tolerance.restart(worker, failure)
                self._start(worker, self._fresh(worker))
