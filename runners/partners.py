"""The worker processes that exchange gradients with the run, which itself is worker 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from coach.core.learner import Learner
from coach.core.source import Episode, Notice, Standing, WorkerStanding
from coach.core.state import prefixed, under
from coach.runners.channel import ChannelClosedError, Message
from coach.runners.exchange import GradientWork, Portion
from coach.runners.gradient_worker import READY, STATE, replay_folder, serve_gradients
from coach.runners.ledger import Ledger
from coach.runners.notices import NOTICES, unpacked
from coach.runners.shared import share
from coach.runners.storage import freeze, thaw
from coach.runners.worker import Tolerance, Worker, WorkerError, failure_in, stop_all


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
        self.saved: dict[str, dict[str, Any]] = {}  # states by `name_of` the worker
        self._read = [0] * portion.workers
        self._dropped, self._notices = 0, list[Notice]()
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
        """In words what went wrong with a worker, if something did.

        Raises:
            BadValueError: its environment returned something that cannot be used.
            NotFiniteError: something of its agent became NaN or infinite.
        """
        try:
            while worker.channel.waiting():
                failure = self._heard(worker.channel.receive(self.timeout))
                if failure is not None:
                    return failure
        except (ChannelClosedError, TimeoutError):
            return worker.death()
        return None

    def notes(self) -> tuple[int, list[Notice]]:
        """Episodes dropped by the workers, and what they had to say, since the last call.

        Read with what `failure` reads.
        """
        found = self._dropped, self._notices
        self._dropped, self._notices = 0, []
        return found

    def _heard(self, message: Message) -> str | None:
        """Keep the notices in a message; in words, the failure in it."""
        if message.kind == NOTICES:
            self._dropped += message.value
            self._notices += unpacked(message.data)
        return failure_in(message)

    def state_of(self, worker: Worker, patience: float | None = None) -> dict[str, Any]:
        """The state that a worker hands over.

        Args:
            worker: which one.
            patience: seconds to wait at most; left out, until it counts as hung.

        Raises:
            WorkerError: it does not.
        """
        patience = self.timeout if patience is None else patience
        try:
            message = worker.channel.receive(patience)
            while message.kind in (READY, NOTICES):  # it has only just started
                self._heard(message)
                message = worker.channel.receive(patience)
            failure = failure_in(message)
            if failure is not None:
                raise WorkerError(f"Worker {worker.number} failed: {failure.strip()}")
            assert message.kind == STATE
            return thaw(message.data)
        except ChannelClosedError as error:
            raise WorkerError(f"Worker {worker.number} is gone: {worker.death()}") from error
        except TimeoutError as error:
            raise WorkerError(
                f"Worker {worker.number} has not handed over its state for {patience:g} s "
                "(run.worker_timeout)"
            ) from error

    def standing(self, steps: list[int], learner_waits: float | None = None) -> Standing:
        """How all workers did since the last call, given their steps so far."""
        (since, before), now = self._mark, perf_counter()
        self._mark, wall = (now, steps), max(now - since, 1e-9)
        speeds = [(new - old) / wall for old, new in zip(before, steps)]
        restarts = self.tolerance.of
        workers = [WorkerStanding(n, speed, restarts=restarts[n]) for n, speed in enumerate(speeds)]
        updates = int(self.ledger.updates.sum()) or None
        return Standing(workers, learner_waits and learner_waits / wall, updates=updates)

    def mark(self, steps: list[int]) -> None:
        """Count speeds from these steps on."""
        self._mark = (perf_counter(), steps)

    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """Folder and chunks of the rows of every worker's memory, as last handed over."""
        return {
            replay_folder(worker.number): self.saved[name_of(worker)].get("chunks", [])
            for worker in self.workers
            if name_of(worker) in self.saved
        }

    def saved_in(self, state: dict[str, Any]) -> None:
        """Take the workers' states out of a saved one."""
        self.saved = {name_of(worker): under(name_of(worker), state) for worker in self.workers}

    def saved_into(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state with those of the workers, as last handed over."""
        for name, saved in self.saved.items():
            state |= prefixed(name, saved)
        return state

    def stop(self) -> None:
        """End all workers."""
        self.ledger.stop[0] = 1
        stop_all(self.workers)


def name_of(worker: Worker) -> str:
    """What the state of a worker is saved under."""
    return f"partner{worker.number}/"
