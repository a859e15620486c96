"""How far a run is, and whether it shall go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from coach.core.errors import InterruptedRunError

__all__ = ["Clock", "InterruptedRunError", "ended_by_signals"]


@dataclass
class Clock:
    """How far a run is.

    Args:
        limit: environment steps to take.
        env_steps: environment steps taken.
        stop: why to end early, set from outside ("interrupted", "target reached").
        collecting: a fragment is being collected; one that is broken off is given up.
    """

    limit: int
    env_steps: int = 0
    stop: str = ""
    collecting: bool = False
    _first: int = field(default=0, init=False)
    _reached: dict[str, int] = field(default_factory=dict, init=False)

    @property
    def finished(self) -> bool:
        """Whether the run shall end."""
        return bool(self.stop) or self.env_steps >= self.limit

    @property
    def interrupted(self) -> bool:
        """Whether a signal ends the run."""
        return self.stop.startswith("interrupted")

    def agree(self, stop: bool) -> None:
        """Hear whether all workers end here; matters where they have to end together."""

    def advance(self, steps: int) -> None:
        """Count environment steps that were taken."""
        self.env_steps += steps

    def passes(self, event: str, every: int) -> bool:
        """Whether a multiple of ``every`` was crossed since ``event`` was last asked for.

        0 stands for never; the first multiple that counts is the one after `begin`.
        """
        if not every:
            return False
        reached = self.env_steps // every
        before = self._reached.get(event, self._first // every)
        self._reached[event] = reached
        return reached > before

    def begin(self, env_steps: int) -> None:
        """Start from a number of steps taken before."""
        self.env_steps = self._first = env_steps


@contextmanager
def ended_by_signals(clock: Clock) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run with a checkpoint; a second SIGINT ends it at once."""

    def handle(number: int, _: FrameType | None) -> None:
        if clock.interrupted:
            raise KeyboardInterrupt
        # Nothing is printed here: what was printing at this moment must not be entered again.
        clock.stop = f"interrupted by {signal.Signals(number).name}"

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, handle) for number in numbers]
    except ValueError:  # not in the main thread, where signals cannot be handled
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
