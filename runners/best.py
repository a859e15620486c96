"""The best policy of a run, as far as its evaluations tell."""

from __future__ import annotations

from math import inf, isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from coach.runners.checkpoint import save_policy
from torch import Tensor

#: Seconds between two writings of it, each of which waits for the disk.
LEAST_SECONDS = 10.0


class BestPolicy:
    """Keeps the newest of those with the highest return, on disk as well.

    A run that improves many times a second would wait for the disk more than it learns, so a policy
    that comes soon after another one waits for its turn, or for `flush`.

    Args:
        folder: where it is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Its mean return; ``None`` while nothing has been evaluated.
        self.value: float | None = None
        self._unwritten: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._written = -inf

    def offer(self, value: float, weights: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep a policy if none was better; one whose return is not finite never is.

        Args:
            value: its mean return.
            weights: of the whole agent; they must not change afterwards.
            facts: that are kept with it.
        """
        # Older runs may have kept a NaN, which is neither less nor more.
        if isfinite(value) and (self.value is None or not value < self.value):
            self.value = value
            self._unwritten = (weights, {**facts, "return": value})
            self.tick()

    def tick(self) -> None:
        """Write it if there is something new, and the last time is long enough ago."""
        if self._unwritten is not None and monotonic() - self._written >= LEAST_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write it if there is something new.

        Raises:
            ResourceError: the disk is full or cannot be written.
        """
        if self._unwritten is not None:
            save_policy(self.folder, *self._unwritten)
            self._unwritten, self._written = None, monotonic()
