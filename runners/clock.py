"""How far a run is, and whether it shall go on."""

from __future__ import annotations

from dataclasses import dataclass


class InterruptedRunError(Exception):
    """The run is to stop while it waits for something that may never come."""


@dataclass
class Clock:
    """How far a run is.

    Args:
        limit: environment steps to take.
        env_steps: environment steps taken.
        stop: why to end early, set from outside ("interrupted", "target reached").
    """

    limit: int
    env_steps: int = 0
    stop: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run shall end."""
        return bool(self.stop) or self.env_steps >= self.limit

    def passes(self, every: int, steps: int) -> bool:
        """Whether the last ``steps`` crossed a multiple of ``every`` (0: never)."""
        return bool(every) and self.env_steps // every > (self.env_steps - steps) // every
