"""How many CPU threads an update uses, chosen by trial during the run.

One thread suits small networks, and more pay only where products are large. Threads wait for each
other in a busy loop, so beside another program on the same CPUs they can be many times slower than
one thread.

They are torch's. Only where NumPy makes products (see `coach.core.blas`), and there are no
convolutions, are they those of its library instead, and torch keeps to one: two pools of threads
that wait in busy loops disturb each other, and products are what is worth dividing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter
from types import TracebackType
from typing import Any

import torch
from coach.core import blas
from coach.core.dispatch import Work

#: Floating-point operations of an update below which one thread is taken without a trial. Such an
#: update takes 1 to 2 ms with one thread.
LEAST_WORK = 200_000_000
#: Updates with one number of threads in a row: a multiple of the usual cadences of objectives.
_BLOCK = 6
_ROUNDS = 4
_ENOUGH = 1.0  # seconds after which two rounds of a trial suffice
_WORTHWHILE = 1.1  # how much faster twice the threads must be
_PAUSE = 250  # updates with one thread until the next trial; doubled after every trial that fails
# What more threads may lose against one, in updates with one thread: a trial, and a choice.
_TRIAL_LOSS, _CHOICE_LOSS = 6, 16
_SLOW_UPDATES = 3  # at least so many make up a loss: one pause of the machine says nothing
_LOSS_SHARE = 0.02  # of the updates since, to which a loss must have shrunk before the next trial


@dataclass
class _Mean:
    """Mean seconds of an update."""

    seconds: float = 0.0
    updates: int = 0

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.updates += 1

    @property
    def value(self) -> float:
        return self.seconds / self.updates if self.updates else inf


class Threads:
    """Sets the number of threads, by trial if there is a choice.

    Used as a context around every update. The first update's operations are counted: if they are
    few, the number stays one. Otherwise the next updates use one thread and two in turn, then four,
    as long as the mean update becomes faster. A run stays with its choice, since sums of several
    threads differ in their last bits.

    A busy program on the same CPUs makes several threads slow. The time that updates take beyond
    what they took with one thread is added up; where it exceeds a few updates' worth, the run goes
    back to one thread. It tries again later, after pauses that grow with every failure and with
    what was lost. So all failures together cost a few percent of a run at most.

    Args:
        most: threads that may be used; 1 leaves nothing to choose.
        say: called with a line for the user about each choice.
        stated: a number to use instead, without a trial.
        of_products: the threads are those of NumPy's products, and used in updates only.
        clock: returns seconds.
    """

    def __init__(
        self,
        most: int = 1,
        say: Callable[[str], None] = lambda _: None,
        stated: int | None = None,
        of_products: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.most, self._say, self.of_products = 1 if stated else most, say, of_products
        self.count, self.decided = stated or 1, self.most == 1
        self._clock = clock or perf_counter
        self._of_products = 1
        if stated:
            self._use(stated)
        self._work: Work | None = None
        self._trying = 0  # the larger number of the present trial
        self._done = 0  # updates of the trial
        self._means: dict[int, _Mean] = {}  # of the trial, by threads
        self._alone = inf  # seconds of an update with one thread
        self._behind = 0.0  # seconds beyond those of one thread
        self._slow = 0  # updates that were slower than with one thread since it was 0
        self._pause, self._left = _PAUSE, 0  # updates until the next trial; 0: there is none

    @property
    def settled(self) -> bool:
        """Whether there is nothing to find out, to watch or to set any more."""
        alone = self.count == 1 or (self.most == 1 and not self.of_products)
        return self.decided and alone and not self._left

    def __enter__(self) -> None:
        if not self.decided:
            if not self._trying:
                self._work = Work()
                self._work.__enter__()  # type: ignore[no-untyped-call]
            else:
                self._use(self._on_trial())
        if self._of_products > 1:
            blas.use_threads(self._of_products)
        self._begin = self._clock()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = self._clock() - self._begin
        if self._of_products > 1:
            blas.use_threads(1)
        if self._work is not None:
            work, self._work = self._work, None
            work.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
            self._counted(work.operations)
        elif not self.decided:
            self._tried(seconds)
        elif self.count > 1 and self.most > 1:
            self._watch(seconds)
        elif self._left:
            self._left -= 1
            if not self._left:
                self._try(2)

    def state_dict(self) -> dict[str, Any]:
        """The choice, for a run that goes on later."""
        if not self.decided or self._alone == inf:  # nothing that could not be found out again
            return {}
        return {"count": self.count, "alone": self._alone}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stay with the choice that was made; does nothing where there is no choice now."""
        if state and self.most > 1:
            self._alone = state["alone"]
            self._settle_on(state["count"])

    def _counted(self, work: int) -> None:
        if work < LEAST_WORK:
            self.decided = True
        else:
            self._try(2)

    def _try(self, count: int) -> None:
        """Begin a trial of ``count`` threads against as many as are used now."""
        self.decided, self._trying, self._done = False, count, 0
        self._behind, self._slow = 0.0, 0
        self._means = {self.count: _Mean(), count: _Mean()}

    def _on_trial(self) -> int:
        return (self.count, self._trying)[self._done // _BLOCK % 2]

    def _tried(self, seconds: float) -> None:
        count = self._on_trial()
        fewer, more = self._means[self.count], self._means[self._trying]
        self._means[count].add(seconds)
        self._done += 1
        if self.count == 1:
            self._alone = fewer.value
        if count == self._trying:
            self._behind = more.seconds - more.updates * fewer.value
            if self._behind > _TRIAL_LOSS * fewer.value:
                self._conclude()
                return
        rounds, part = divmod(self._done, 2 * _BLOCK)
        spent = fewer.seconds + more.seconds
        if part or rounds < 2 or (rounds < _ROUNDS and spent < _ENOUGH):
            return
        if fewer.value < _WORTHWHILE * more.value:
            self._conclude()
            return
        self.count = self._trying
        if 2 * self.count > self.most:
            self._conclude()
        else:
            self._try(2 * self.count)

    def _conclude(self) -> None:
        self._settle_on(self.count)
        if self.count > 1:
            gain = self._alone / self._means[self.count].value
            self._say(
                f"Updates use {self.count} threads, with which they are {gain:.1f} times as fast; "
                "run.threads fixes the number."
            )

    def _watch(self, seconds: float) -> None:
        self._behind = max(0.0, self._behind + seconds - self._alone)
        self._slow = self._slow + (seconds > self._alone) if self._behind else 0
        if self._slow >= _SLOW_UPDATES and self._behind > _CHOICE_LOSS * self._alone:
            self._say(
                f"Updates with {self.count} threads have become slower than with one, because "
                "other programs use the CPUs: going on with one for a while."
            )
            self._settle_on(1)

    def _settle_on(self, count: int) -> None:
        self.decided, self.count = True, count
        self._use(count)
        lost = max(0.0, self._behind) / self._alone if self._alone < inf else 0.0
        self._behind, self._slow = 0.0, 0
        if count == 1:
            self._left = max(self._pause, round(lost / _LOSS_SHARE))
            self._pause *= 2

    def _use(self, count: int) -> None:
        self._of_products = count if self.of_products else 1
        torch.set_num_threads(1 if self.of_products else count)
