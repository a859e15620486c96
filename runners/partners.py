"""The run's side of the exchange of gradients: it is worker 0 and looks after the others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

from coach.core.batch import Batch
from coach.core.flat import FlatParameters
from coach.core.learner import Learner
from coach.core.optimizer import Stepper
from coach.core.source import Episode, Report, Source, Standing, WorkerStanding
from coach.core.state import prefixed, under
from coach.runners.actor import Actor
from coach.runners.channel import ChannelClosedError
from coach.runners.clock import Clock
from coach.runners.exchange import (
    Averaged,
    GradientWork,
    Ledger,
    Portion,
    SharedClock,
    agree_on,
    join_group,
    share_parameters,
    shared_size,
)
from coach.runners.gradient_worker import READY, SAVE, SAVING, STATE, STOPPING, serve_gradients
from coach.runners.shared import share
from coach.runners.storage import freeze, thaw
from coach.runners.worker import FAILED, START_SECONDS, Tolerance, Worker, WorkerError
from torch import Tensor, distributed, nn

_LAST_WORDS_SECONDS = 2.0


class LostPartnerError(WorkerError):
    """A worker was lost without which the others cannot go on; the run has to be taken up again."""


class Partners:
    """Worker processes 1 to W - 1, each with the whole loop; what both ways of sharing need.

    Args:
        build: makes an experiment of a preset's settings.
        settings: the preset, from which they build everything.
        portion: of this process, which is worker 0.
        num_envs: environments of the run.
        fragment_length: steps per environment and fragment.
        plugins: imported by the workers.
        tolerance: how many failures are put up with.
        timeout: seconds after which a silent worker counts as hung.
    """

    def __init__(
        self,
        build: Callable[..., Any],
        settings: dict[str, Any],
        portion: Portion,
        num_envs: int,
        fragment_length: int,
        plugins: list[str],
        tolerance: Tolerance,
        timeout: float,
    ) -> None:
        self.build = build
        self.settings, self.count, self.num_envs = settings, portion.workers, num_envs
        self.tolerance, self.timeout = tolerance, timeout
        self.workers = [
            Worker(number, "process", serve_gradients, plugins)
            for number in range(1, portion.workers)
        ]
        sizes = (portion.workers, num_envs, fragment_length)
        self._block = share(lambda zeros: Ledger.allocate(*sizes, zeros))
        self.ledger = Ledger.allocate(*sizes, self._block.again().zeros)
        self.ledger.episode[:] = -1
        self.folder = Path()
        self._read = [0] * portion.workers
        self._mark = (perf_counter(), [0] * portion.workers)

    def start(
        self, worker: Worker, learner: Learner, base: int, state: dict[str, Any], **rest: Any
    ) -> None:
        """Start a worker; ``rest`` are further fields of its `GradientWork`."""
        portion = Portion(worker.number, self.count)
        worker.start(
            GradientWork(
                build=self.build,
                settings=self.settings,
                portion=portion,
                ledger=self._block.again(),
                base=base,
                learner=freeze(learner.state_dict()),
                state=freeze(state),
                folder=self.folder,
                **rest,
            )
        )

    def episodes(self, until: int | None) -> list[Episode]:
        """Episodes that have ended since the last call, in fragments up to ``until``."""
        found = []
        for worker in self.workers:
            number = worker.number
            new = self.ledger.read(number, self._read[number], until)
            ended = int(self.ledger.ended[number])
            # Without a limit all are read, those too that the mailbox had no place for.
            self._read[number] = ended if until is None else self._read[number] + len(new)
            found += new
        return found

    def failure(self, worker: Worker) -> str | None:
        """In words what went wrong with a worker, if something did."""
        try:
            while worker.channel.waiting():
                message = worker.channel.receive(self.timeout)
                if message.kind == FAILED:
                    return message.text
        except (ChannelClosedError, TimeoutError):
            return worker.death()
        return None

    def state_of(self, worker: Worker) -> dict[str, Any]:
        """The state that a worker hands over.

        Raises:
            WorkerError: it does not.
        """
        try:
            message = worker.channel.receive(self.timeout)
            if message.kind == READY:  # it has only just started
                message = worker.channel.receive(self.timeout)
            if message.kind == FAILED:
                raise WorkerError(f"Worker {worker.number} failed: {message.text.strip()}")
            assert message.kind == STATE
            return thaw(message.data)
        except ChannelClosedError as error:
            raise WorkerError(f"Worker {worker.number} is gone: {worker.death()}") from error
        except TimeoutError as error:
            raise WorkerError(
                f"Worker {worker.number} has not handed over its state for {self.timeout:g} s "
                "(run.worker_timeout)"
            ) from error

    def standing(self, steps: list[int], learner_waits: float | None = None) -> Standing:
        """How all workers did since the last call, given their steps so far."""
        (since, before), now = self._mark, perf_counter()
        self._mark, wall = (now, steps), max(now - since, 1e-9)
        speeds = [(new - old) / wall for old, new in zip(before, steps)]
        restarts = self.tolerance.of
        workers = [WorkerStanding(n, speed, restarts=restarts[n]) for n, speed in enumerate(speeds)]
        return Standing(workers, learner_waits and learner_waits / wall)

    def stop(self) -> None:
        """End all workers."""
        self.ledger.stop[0] = 1
        for worker in self.workers:
            worker.stop()


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
        self._meeting = tempfile.TemporaryDirectory(prefix="coach-")
        self._running = False
        self._repeat = True
        self._saved: dict[str, dict[str, Any]] = {}  # by partner
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
        except Exception as error:
            raise LostPartnerError(f"Worker 0 failed: {type(error).__name__}: {error}") from error

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
        if not self._running:
            return _with(state, self._saved)
        for worker in self.partners.workers:
            self._saved[_name(worker)] = self._together(partial(self._ask, worker))
        return _with(state, self._saved)

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`."""
        self.actor.load_state_dict(state, restore_environments)
        self._repeat = restore_environments
        self._episodes = [Episode(*values) for values in state.get("unread", [])]
        self._saved = {
            _name(worker): under(_name(worker), state) for worker in self.partners.workers
        }

    def close(self) -> None:
        """End the partners."""
        if distributed.is_initialized():
            distributed.destroy_process_group()
        if self._running:
            self._running = False
            self.partners.stop()
        self._meeting.cleanup()
        self.actor.close()

    def _ask(self, worker: Worker) -> dict[str, Any]:
        if self.clock.finished:  # it has left the loop, and waits for a word
            worker.channel.send(SAVE)
        return self.partners.state_of(worker)

    def _begin(self) -> None:
        partners, meeting = self.partners, str(Path(self._meeting.name) / "meeting")
        for worker in partners.workers:
            partners.start(
                worker,
                self.learner,
                self.clock.env_steps,
                meeting=meeting,
                parameters=None,
                state=self._saved.get(_name(worker), {}),
                repeat=self._repeat,
            )
        for worker in partners.workers:  # those that cannot start say why before anyone waits
            message = worker.channel.receive(START_SECONDS)
            if message.kind == FAILED:
                raise WorkerError(f"Worker {worker.number} did not start: {message.text}")
        join_group(meeting, Portion(0, partners.count), self.learner.device, partners.timeout)

    def _together(self, act: Callable[[], Any]) -> Any:
        """Do something in which all workers take part."""
        begin = perf_counter()
        try:
            return act()
        except (RuntimeError, ChannelClosedError, TimeoutError, WorkerError) as error:
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
    ) -> Tensor:
        norm: Tensor = self.watch(partial(self.averaged, stepper, group, lr, max_norm))
        return norm


class HogwildSource(Source):
    """An actor of this process, and partners that update the same parameters without a lock.

    A partner that fails is replaced; nobody waits for it.

    Args:
        actor: on this process's share of the environments.
        partners: the other workers.
        learner: of this process; its parameters move into shared memory.
        clock: counts the steps of all workers.
    """

    def __init__(
        self, actor: Actor, partners: Partners, learner: Learner, clock: SharedClock
    ) -> None:
        self.actor, self.partners, self.learner, self.clock = actor, partners, learner, clock
        clock.count_in(partners.ledger)
        self._block = share(lambda zeros: shared_size(learner, zeros))
        share_parameters(learner, self._block.again().zeros, keep=True)
        self._running = False
        self._saved: dict[str, dict[str, Any]] = {}  # by partner
        # Steps of each worker, when they last grew, and whether it is still starting.
        self._progress = [(0, 0.0, True)] * partners.count

    def collect(self) -> Batch:
        """The next fragment of this process's own environments."""
        if not self._running:
            self._running = True
            for worker in self.partners.workers:
                self._start(worker, self._saved.get(_name(worker), {}))
        self._look_after()
        self.actor.ctx.step = self.clock.env_steps
        while True:
            try:
                return self.actor.collect()
            except Exception as error:  # whatever an environment raises
                self.partners.tolerance.note(0, f"{type(error).__name__}: {error}")
                self.actor.begin_anew()

    def publish(self, policy: nn.Module, version: int) -> None:
        """Weights are shared already."""
        self.actor.publish(policy, version)

    def settle(self, save: bool) -> None:
        """Nobody has to agree."""

    def keep_in(self, folder: Path) -> None:
        """Where partners keep the rows of their memories."""
        self.partners.folder = folder.resolve()

    def report(self) -> Report:
        """Episodes of all workers, timings of this one."""
        report = self.actor.report()
        report.episodes += self.partners.episodes(None)
        return report

    def standing(self) -> Standing:
        """How the workers did."""
        return self.partners.standing(self.partners.ledger.steps.tolist())

    def timed(self) -> list[tuple[Any, str, str]]:
        """What this process does itself."""
        return self.actor.timed()

    def state_dict(self) -> dict[str, Any]:
        """State of every worker; one that has just failed is left with its episode numbers."""
        state = self.actor.state_dict()
        if not self._running:
            return _with(state, self._saved)
        for worker in self.partners.workers:
            try:
                worker.channel.send(SAVE)
                mine = self.partners.state_of(worker)
            except (ChannelClosedError, WorkerError):
                mine = self._fresh(worker)
            self._saved[_name(worker)] = mine
        return _with(state, self._saved)

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`."""
        self.actor.load_state_dict(state, restore_environments)
        self._saved = {
            _name(worker): under(_name(worker), state) for worker in self.partners.workers
        }

    def close(self) -> None:
        """End the partners."""
        if self._running:
            self._running = False
            self.partners.stop()
        self.actor.close()

    def _start(self, worker: Worker, state: dict[str, Any]) -> None:
        done = int(self.partners.ledger.steps.sum())
        self.partners.start(
            worker,
            self.learner,
            self.clock.env_steps - done,
            meeting="",
            parameters=self._block.again(),
            state=state,
            repeat=True,
        )
        steps = int(self.partners.ledger.steps[worker.number])
        self._progress[worker.number] = (steps, monotonic(), True)

    def _fresh(self, worker: Worker) -> dict[str, Any]:
        part = Portion(worker.number, self.partners.count).share(self.partners.num_envs)
        episode = self.partners.ledger.episode[part.start : part.stop].tolist()
        return {"source/step": self.clock.env_steps, "source/episode": episode}

    def _look_after(self) -> None:
        """Replace partners that have failed."""
        now = monotonic()
        for worker in self.partners.workers:
            failure = self.partners.failure(worker)
            steps = int(self.partners.ledger.steps[worker.number])
            before, since, starting = self._progress[worker.number]
            limit = START_SECONDS if starting else self.partners.timeout
            if failure is None and steps != before:
                self._progress[worker.number] = (steps, now, False)
            elif failure is None and now - since > limit:
                failure = f"it has taken no step for {limit:g} s (run.worker_timeout)"
            if failure is not None:
                self.partners.tolerance.restart(worker, failure)
                self._start(worker, self._fresh(worker))


def _name(worker: Worker) -> str:
    return f"partner{worker.number}/"


def _with(state: dict[str, Any], partners: dict[str, dict[str, Any]]) -> dict[str, Any]:
    for name, saved in partners.items():
        state |= prefixed(name, saved)
    return state
