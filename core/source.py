"""The source contract: where experience comes from. A mode is a choice of source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from coach.core.batch import Batch
from torch import nn


@dataclass(frozen=True)
class Episode:
    """A finished episode.

    Args:
        env_id: environment it was played in.
        value: sum of its undiscounted rewards.
        length: number of its steps.
    """

    env_id: int
    value: float
    length: int


@dataclass
class Report:
    """What a source has to tell since it was last asked.

    Args:
        episodes: finished ones, in order.
        seconds: time spent by activity ("env", "act", "wait").
    """

    episodes: list[Episode] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Source(Protocol):
    """Delivers fragments. Implementations differ in where environments and acting live."""

    #: Whether the run cannot go on without one of its workers, and has to be taken up again.
    fragile: bool = False

    def collect(self) -> Batch:
        """The next fragment ``[T, N]``; its tensors are valid until the next call."""

    def publish(self, policy: nn.Module, version: int) -> None:
        """Let acting use new weights."""

    def settle(self, save: bool) -> None:
        """A fragment has been dealt with; with ``save``, `state_dict` is asked for next."""
        return

    def keep_in(self, folder: Path) -> None:
        """Learn of the run's folder, before anything is collected."""
        return

    def report(self) -> Report:
        """Episodes and timings since the last call."""

    def monitor(self) -> dict[str, float]:
        """Scalars about workers since the last call; empty where there are none."""
        return {}

    def advice(self) -> str:
        """In a sentence, what holds the run up, if that is worth saying."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue as if never interrupted."""

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`; or, not restoring, with fresh episodes."""

    def close(self) -> None:
        """Release environments and processes."""
