"""What free-running actors did, and what that says about the balance of a run."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np
from coach.core.source import Standing, WorkerStanding
from coach.runners.slot import Slot

_APART = 0.2  # difference of two shares of time that is worth a word


class Tally:
    """Sums up the fragments of actors since it was last asked.

    Args:
        workers: number of actors.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._clear()
        self._unreported = 0.0
        self._total = np.zeros(3)

    def note(self, number: int, slot: Slot, lag: int, waited: float, queued: int) -> None:
        """Take in a fragment of actor ``number``, for which the learner waited some seconds."""
        self._steps[number] += slot.fragment.batch.steps
        self._seconds[number] += slot.seconds
        self._total += slot.seconds
        self._lags[number].append(lag)
        self._queued.append(queued)
        self._waited += waited
        self._unreported += waited

    def take_waiting(self) -> dict[str, float]:
        """Seconds that the learner waited for data, since the last call."""
        waited, self._unreported = self._unreported, 0.0
        return {"wait": waited}

    def totals(self) -> dict[str, float]:
        """Seconds of all actors by activity, over the whole run."""
        return dict(zip(("environments", "acting", "waiting for a slot"), self._total.tolist()))

    def take(self, restarts: Mapping[int, int], discarded: int) -> Standing:
        """How the actors stand; the sums begin anew."""
        wall = max(perf_counter() - self._begin, 1e-9)
        total = np.maximum(self._seconds.sum(1), 1e-9)  # [W]
        waits = self._seconds[:, 2] / total
        workers = [
            WorkerStanding(
                number,
                self._steps[number] / wall,
                float(waits[number]),
                float(np.mean(self._lags[number])) if self._lags[number] else None,
                restarts.get(number, 0),
            )
            for number in range(self.workers)
        ]
        learner_waits = self._waited / wall
        standing = Standing(
            workers,
            learner_waits,
            max((lag for lags in self._lags for lag in lags), default=None),
            float(np.mean(self._queued)) if self._queued else None,
            discarded,
            advice_on(learner_waits, float(np.mean(waits))),
        )
        self._clear()
        return standing

    def _clear(self) -> None:
        self._begin = perf_counter()
        self._steps = [0] * self.workers
        self._seconds = np.zeros((self.workers, 3))  # in environments, acting, waiting
        self._lags: list[list[int]] = [[] for _ in range(self.workers)]
        self._queued: list[int] = []
        self._waited = 0.0


def advice_on(learner_waits: float, workers_wait: float) -> str:
    """In a sentence, whether more workers would help, from the shares of time spent waiting."""
    if workers_wait - learner_waits > _APART:
        return "learner-bound: more workers will not help"
    if learner_waits - workers_wait > _APART:
        return "worker-bound: more workers help as long as there are free CPUs"
    return "balanced: workers and learner wait about equally long for each other"
