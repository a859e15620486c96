"""Signals that end a run: noted at once, and obeyed where nothing that was learned is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, TypeAlias

from coach.core.errors import InterruptedRunError

if TYPE_CHECKING:
    from coach.runners.clock import Clock

Handler: TypeAlias = Callable[[int, FrameType | None], None]

#: Seconds in which what is under way may end by itself after the first signal.
GRACE_SECONDS = 1.5
_AGAIN_SECONDS = 0.5
#: SIGHUP comes when a terminal is closed; Windows has none.
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let signals raise `InterruptedRunError`; for times in which there is nothing to save."""

    def handle(number: int, _: FrameType | None) -> None:
        raise InterruptedRunError(number)

    with _handled_by(handle):
        yield


@contextmanager
def ended_by_signals(clock: Clock) -> Iterator[None]:
    """Let signals end the run of ``clock``.

    The first one is noted in ``clock.stop``. After `GRACE_SECONDS`, or with a second signal, the
    clock is ``urgent``: then updates stop, and `InterruptedRunError` is raised wherever the run is
    ``breakable``, in a step of an environment that does not return, too. It is never raised
    elsewhere, so no signal can spoil a checkpoint that is being written.
    """
    reminder = _Reminder(clock)

    def handle(number: int, _: FrameType | None) -> None:
        # Nothing is printed and no lock is taken here: what held it at this moment could not go on.
        if clock.interrupted:
            clock.urgent = True
        else:
            clock.stop = f"interrupted by {signal.Signals(number).name}"
            reminder.first.put(number)
        if clock.urgent and clock.breakable:
            raise InterruptedRunError(number)

    with _handled_by(handle) as handled:
        if handled:
            reminder.start()
        try:
            yield
        finally:
            clock.breakable = False
            if handled:
                reminder.end()


class _Reminder:
    """A thread that sends the first signal again and again, to wake up what waits.

    Args:
        clock: of the run.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        #: The first signal; or 0, which ends the thread. Unlike an event it may be put twice.
        self.first: SimpleQueue[int] = SimpleQueue()
        self._thread = threading.Thread(target=self._remind, name="coach-signals", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.first.put(0)
        self._thread.join()

    def _remind(self) -> None:
        number, patience = self.first.get(), GRACE_SECONDS
        main = threading.main_thread().ident
        while number:
            try:
                number = self.first.get(timeout=patience)
                continue
            except Empty:
                patience = _AGAIN_SECONDS
            self.clock.urgent = True
            self.clock.hurry()
            if hasattr(signal, "pthread_kill") and main is not None:
                signal.pthread_kill(main, number)  # also ends system calls that block
            else:
                signal.raise_signal(number)


@contextmanager
def _handled_by(handle: Handler) -> Iterator[bool]:
    """Handle the signals that end a run; false outside the main thread, where that cannot be."""
    # A run that was started with nohup is not to end with its terminal.
    hangup = getattr(signal, "SIGHUP", None)
    numbers = [n for n in ENDING if n != hangup or signal.getsignal(n) != signal.SIG_IGN]
    try:
        before = [signal.signal(number, handle) for number in numbers]
    except ValueError:
        yield False
        return
    try:
        yield True
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
