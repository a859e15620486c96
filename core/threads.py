"""How many CPU threads an update uses, found out from the first updates of a run.

One suits small networks, and more pay only where products are large. Threads that wait for each
other do so busily, so with another program on the same CPUs they can be many times slower than one.

They are torch's. Only where NumPy makes products (see `coach.core.blas`), and there are no
convolutions, are they those of its library instead, and torch keeps to one: two kinds of threads
that wait busily are in each other's way, and products are what is worth sharing out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter
from types import TracebackType
from typing import Any

import torch
from coach.core import blas
from coach.core.dispatch import Work

#: Floating-point operations of an update below which one thread is taken without trying. It takes
#: 1 to 2 ms with one.
LEAST_WORK = 200_000_000
#: Updates with one number of threads in a row: a multiple of the usual cadences of objectives.
_BLOCK = 6
_ROUNDS = 4
_ENOUGH = 1.0  # seconds after which two rounds have told enough
_WORTHWHILE = 1.1  # how much faster twice the threads must be
_PATIENCE = 64  # updates in a row, slower than they would be with one thread
_PAUSE = 250  # updates with one thread until more are tried again; twice as many the next time


class Threads:
    """Sets the number of threads, by trial if there is a choice.

    Used as a context around every update. The first one's work is counted: if it is little, one
    thread it is, always. Otherwise the next ones are made with one thread and two in turn, then
    four, as long as that makes them faster. A run that has chosen stays with its number, since sums
    of several threads differ in their last bits; only if updates become slower than they were with
    one, because something else wants the CPUs, it goes back to that. As such things pass, a run
    that is left with one tries again later, less and less often.

    Args:
        most: threads that may be used; 1 leaves nothing to find out.
        say: told what was chosen, and why.
        stated: how many it shall be instead, without a trial.
        of_products: they are those of NumPy's products, and used in updates only.
    """

    def __init__(
        self,
        most: int = 1,
        say: Callable[[str], None] = lambda _: None,
        stated: int | None = None,
        of_products: bool = False,
    ) -> None:
        self.most, self._say, self.of_products = 1 if stated else most, say, of_products
        self.count, self.decided = stated or 1, self.most == 1
        self._of_products = 1
        if stated:
            self._use(stated)
        self._work: Work | None = None
        self._trying = 0  # the larger number of the present trial
        self._done = 0  # updates of the trial
        self._block_seconds = self._spent = 0.0
        self._fastest: dict[int, float] = {}  # seconds of a block, by threads
        self._alone = inf  # seconds of an update with one thread
        self._slow = 0
        self._pause, self._left = _PAUSE, 0  # updates until the next trial; 0: there will be none

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
        self._begin = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = perf_counter() - self._begin
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
        self.decided, self._trying, self._done, self._spent = False, count, 0, 0.0
        if count == 2:
            self._fastest = {}

    def _on_trial(self) -> int:
        return (self.count, self._trying)[self._done // _BLOCK % 2]

    def _tried(self, seconds: float) -> None:
        count = self._on_trial()
        self._block_seconds += seconds
        self._done += 1
        if self._done % _BLOCK:
            return
        self._fastest[count] = min(self._fastest.get(count, inf), self._block_seconds)
        self._spent += self._block_seconds
        self._block_seconds = 0.0
        rounds, part = divmod(self._done, 2 * _BLOCK)
        if part or rounds < 2 or (rounds < _ROUNDS and self._spent < _ENOUGH):
            return
        self._alone = self._fastest[1] / _BLOCK
        gain = self._fastest[self.count] / self._fastest[self._trying]
        if gain < _WORTHWHILE:
            self._conclude()
            return
        self.count = self._trying
        if 2 * self.count > self.most:
            self._conclude()
        else:
            self._try(2 * self.count)

    def _conclude(self) -> None:
        self._settle_on(self.count)
        gain = self._fastest[1] / self._fastest[self.count]
        if self.count > 1:
            self._say(
                f"Updates use {self.count} threads, with which they are {gain:.1f} times as fast; "
                "run.threads fixes the number."
            )

    def _watch(self, seconds: float) -> None:
        self._slow = self._slow + 1 if seconds > self._alone else 0
        if self._slow >= _PATIENCE:
            self._say(
                f"Updates with {self.count} threads have become slower than with one, because "
                "other programs use the CPUs: going on with one for a while."
            )
            self._settle_on(1)

    def _settle_on(self, count: int) -> None:
        self.decided, self.count, self._slow = True, count, 0
        self._use(count)
        if count == 1:
            self._left, self._pause = self._pause, 2 * self._pause

    def _use(self, count: int) -> None:
        self._of_products = count if self.of_products else 1
        torch.set_num_threads(1 if self.of_products else count)
