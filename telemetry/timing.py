"""Where the time of a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from time import perf_counter

import psutil

_MEMORY_SECONDS = 1.0  # between two looks at the memory, each of which costs as much as a row


class Timing:
    """Speeds and shares of time since the last line.

    Args:
        env_steps: environment steps taken before.
        updates: updates made before.
    """

    def __init__(self, env_steps: int = 0, updates: int = 0) -> None:
        self._mark = (perf_counter(), env_steps, updates)
        self._seconds: dict[str, float] = {}
        self._process = psutil.Process()
        self._memory, self._looked = 0.0, -inf

    def add(self, seconds: Mapping[str, float]) -> None:
        """Note time spent by activity."""
        for name, spent in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def take(self, env_steps: int, updates: int) -> dict[str, float]:
        """Scalars by tag; a new line begins."""
        before, steps_before, updates_before = self._mark
        self._mark = (perf_counter(), env_steps, updates)
        wall = max(self._mark[0] - before, 1e-9)
        spent, self._seconds = self._seconds, {}
        if self._mark[0] - self._looked > _MEMORY_SECONDS:
            self._memory = self._process.memory_info().rss / 2**20
            self._looked = self._mark[0]
        return {
            "speed/env_steps_per_s": (env_steps - steps_before) / wall,
            "speed/updates_per_s": (updates - updates_before) / wall,
            **{f"time/{name}": seconds / wall for name, seconds in spent.items()},
            "system/memory_mib": self._memory,
        }
