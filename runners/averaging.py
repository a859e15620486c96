"""Workers that average gradients: the source of mode sync when gradients are exchanged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

from coach.core.batch import Batch
from coach.core.errors import BadValueError, NotFiniteError
from coach.core.flat import FlatParameters
from coach.core.learner import Learner
from coach.core.optimizer import Stepper
from coach.core.source import Episode, Report, Source, Standing
from coach.runners.actor import Actor
from coach.runners.channel import ChannelClosedError
from coach.runners.clock import Clock
from coach.runners.exchange import Averaged, Portion, agree_on, check_alike, join_group
from coach.runners.gradient_worker import SAVE, SAVING, STOPPING
from coach.runners.interrupts import GRACE_SECONDS
from coach.runners.partners import Partners, name_of
from coach.runners.worker import START_SECONDS, Worker, WorkerError, failure_in, in_words
from torch import Tensor, distributed, nn

_LAST_WORDS_SECONDS = 2.0


class LostPartnerError(WorkerError):
    """A worker was lost without which the others cannot go on; the run has to be taken up again."""


class AveragingSource(Source):
    """An actor of this process, and partners that take every step of the optimiser with it.

    When a partner is lost the others cannot go on, since every update needs all of them: the run
    is then taken up again from its last checkpoint (`LostPartnerError`).

    Args:
        actor: on this process's share of the environments.
        partners: the other workers.
        learner: of this process.
        clock: of the run.
    """

    fragile = True

    def __init__(self, actor: Actor, partners: Partners, learner: Learner, clock: Clock) -> None:
        self.actor, self.partners, self.learner, self.clock = actor, partners, learner, clock
        learner.apply = _Watched(Averaged(partners.count), self._together)
        clock.hurry = self._end_waiting
        self._running = self._saving = False
        self._repeat = True
        self._fragments = 0
        self._waited = 0.0
        self._episodes: list[Episode] = []

    def collect(self) -> Batch:
        """The next fragment of this process's own environments."""
        if not self._running:
            self._running = True
            self._together(self._begin)
        try:
            return self.actor.collect()
        except (BadValueError, NotFiniteError):
            raise
        except Exception as error:
            raise LostPartnerError(f"worker 0: {in_words(error)}") from error

    def publish(self, policy: nn.Module, version: int) -> None:
        """Weights are the same everywhere already."""
        self.actor.publish(policy, version)

    def settle(self, save: bool) -> None:
        """Agree with the partners whether to save, and whether to end."""
        stop = bool(self.clock.stop)
        flags = SAVING * save + STOPPING * stop
        self._together(lambda: agree_on(flags, self.learner.device))
        self.clock.agree(stop)
        self._fragments += 1
        self._episodes += self.partners.episodes(self._fragments)

    def keep_in(self, folder: Path) -> None:
        """Where partners keep the rows of their memories."""
        self.partners.folder = folder.resolve()

    def report(self) -> Report:
        """Episodes of all workers, timings of this one."""
        report = self.actor.report()
        report.episodes += self._episodes
        self._episodes = []
        if self._running:
            for worker in self.partners.workers:
                failure = self.partners.failure(worker)
                if failure is not None:
                    raise LostPartnerError(f"worker {worker.number}: {failure.strip()}")
        dropped, notices = self.partners.notes()
        report.dropped += dropped
        report.notices += notices
        return report

    def standing(self) -> Standing:
        """How the workers did, which are equally fast."""
        mine, waited = self.clock.env_steps // self.partners.count, self._waited
        self._waited = 0.0
        return self.partners.standing([mine] * self.partners.count, waited)

    def timed(self) -> list[tuple[Any, str, str]]:
        """What this process does itself."""
        return self.actor.timed()

    def state_dict(self) -> dict[str, Any]:
        """State of every worker."""
        episodes = [[e.env_id, e.value, e.length] for e in self._episodes]
        state = self.actor.state_dict() | {"unread": episodes}
        self._saving = True
        for worker in self.partners.workers if self._running else ():
            self.partners.saved[name_of(worker)] = self._together(partial(self._ask, worker))
        self._saving = False
        return self.partners.saved_into(state)

    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """Chunks of the partners' memories."""
        return self.partners.journals()

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`."""
        self.actor.load_state_dict(state, restore_environments)
        self._repeat = restore_environments
        self._episodes = [Episode(*values) for values in state.get("unread", [])]
        self.partners.saved_in(state)

    def close(self) -> None:
        """End the partners."""
        if distributed.is_initialized():
            distributed.destroy_process_group()
        if self._running:
            self._running = False
            self.partners.stop()
        self._meeting().unlink(missing_ok=True)
        self.actor.close()

    def _meeting(self) -> Path:
        return self.partners.folder / ".meeting"

    def _ask(self, worker: Worker) -> dict[str, Any]:
        if self.clock.finished:  # it has left the loop, and waits for a word
            worker.channel.send(SAVE)
        return self.partners.state_of(worker, GRACE_SECONDS if self.clock.interrupted else None)

    def _begin(self) -> None:
        partners, meeting = self.partners, str(self._meeting())
        self._meeting().unlink(missing_ok=True)  # of an earlier start
        partners.mark([self.clock.env_steps // partners.count] * partners.count)
        for worker in partners.workers:
            partners.start(
                worker,
                self.learner,
                self.clock.env_steps,
                meeting=meeting,
                parameters=None,
                state=partners.saved.get(name_of(worker), {}),
                repeat=self._repeat,
            )
        for worker in partners.workers:  # those that cannot start say why before anyone waits
            message = worker.channel.receive(START_SECONDS)
            failure = failure_in(message)
            if failure is not None:
                raise WorkerError(f"Worker {worker.number} did not start: {failure}")
        join_group(meeting, Portion(0, partners.count), self.learner.device, partners.timeout)
        check_alike(self.learner.groups, self.learner.device)

    def _together(self, act: Callable[[], Any]) -> Any:
        """Do something in which all workers take part."""
        begin = perf_counter()
        try:
            return act()
        except WorkerError as error:
            raise LostPartnerError(error.problem) from error
        except (RuntimeError, ChannelClosedError, TimeoutError) as error:
            raise LostPartnerError(self._failures() or self._in_words(error)) from error
        finally:
            self._waited += perf_counter() - begin

    def _failures(self) -> str:
        """What partners say of it; one that died is known a little later than its silence."""
        until = monotonic() + _LAST_WORDS_SECONDS
        while True:
            told = [
                f"worker {worker.number}: {failure.strip()}"
                for worker in self.partners.workers
                if (failure := self.partners.failure(worker)) is not None
            ]
            if told or monotonic() > until:
                return "; ".join(told)
            sleep(0.05)

    def _end_waiting(self) -> None:
        """End the partners that all wait for: no signal reaches an exchange that is under way."""
        if not self._saving:
            for worker in self.partners.workers:
                worker.kill_soon()

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, TimeoutError) or "imed out" in str(error):
            return f"a worker has been silent for {self.partners.timeout:g} s (run.worker_timeout)"
        return str(error)


class _Watched:
    """Averages, and turns a failure of the exchange into one of a worker."""

    def __init__(self, averaged: Averaged, watch: Callable[[Callable[[], Any]], Any]) -> None:
        self.averaged, self.watch = averaged, watch

    def __call__(
        self, stepper: Stepper, group: FlatParameters, lr: float, max_norm: float | None
    ) -> Tensor | None:
        square: Tensor | None = self.watch(partial(self.averaged, stepper, group, lr, max_norm))
        return square
