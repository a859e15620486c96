"""How far a run is, and whether it shall go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """How far a run is.

    Args:
        limit: environment steps to take.
        env_steps: environment steps taken.
        stop: why to end early, set from outside ("interrupted", "target reached").
        collecting: a fragment is being collected; one that is broken off is given up.
        breakable: what the run does now may be broken off by an `InterruptedRunError`.
        urgent: a signal came some time ago, or a second one: nothing else may be begun.
        hurry: called when it becomes urgent, in another thread, to wake up what ignores signals.
    """

    limit: int
    env_steps: int = 0
    stop: str = ""
    collecting: bool = False
    breakable: bool = False
    urgent: bool = False
    hurry: Callable[[], None] = lambda: None
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
