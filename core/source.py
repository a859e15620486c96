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
        cut: whether an evaluation ended it, since it had come to its limit of steps.
    """

    env_id: int
    value: float
    length: int
    cut: bool = False


@dataclass(frozen=True)
class Notice:
    """Something to say about an environment.

    Args:
        text: what to say.
        topic: is said once in a run; empty, every time.
    """

    text: str
    topic: str = ""


@dataclass
class Report:
    """What a source has to tell since it was last asked.

    Args:
        episodes: finished ones, in order.
        seconds: time spent by activity ("env", "act", "wait").
        dropped: episodes left out because of a bad value, see ``environment.on_bad_value``.
        notices: about the environments.
    """

    episodes: list[Episode] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    dropped: int = 0
    notices: list[Notice] = field(default_factory=list)


@dataclass(frozen=True)
class WorkerStanding:
    """How one worker did since the last time; what it does not know is ``None``.

    Args:
        number: which one.
        env_steps_per_s: environment steps per second.
        waits: share of its time in which it waited for the learner or for the other workers.
        policy_lag: mean age, in updates, of the policy that its fragments were acted with.
        restarts: how often it has been replaced, over the whole run.
    """

    number: int
    env_steps_per_s: float
    waits: float | None = None
    policy_lag: float | None = None
    restarts: int = 0


@dataclass(frozen=True)
class Standing:
    """How a source's workers did since the last time.

    Args:
        workers: one by one.
        learner_waits: share of the time in which the learner waited for them.
        policy_lag_max: largest lag of a fragment, in updates.
        queued: mean number of fragments that were ready when the learner took one.
        discarded: fragments dropped for their age, over the whole run.
        advice: in a sentence, what holds the run up.
        updates: made by workers other than this process, since they were first started.
    """

    workers: list[WorkerStanding]
    learner_waits: float | None = None
    policy_lag_max: int | None = None
    queued: float | None = None
    discarded: int = 0
    advice: str = ""
    updates: int | None = None

    @property
    def policy_lag(self) -> float | None:
        """Mean over the workers that delivered something."""
        known = [worker.policy_lag for worker in self.workers if worker.policy_lag is not None]
        return sum(known) / len(known) if known else None

    @property
    def restarts(self) -> int:
        """Over all workers and the whole run."""
        return sum(worker.restarts for worker in self.workers)

    def scalars(self) -> dict[str, float]:
        """Numbers by tag, for TensorBoard and CSV."""
        told: dict[str, float | None] = {
            "workers/learner_waits": self.learner_waits,
            "workers/policy_lag": self.policy_lag,
            "workers/policy_lag_max": self.policy_lag_max,
            "workers/queued_fragments": self.queued,
            "workers/discarded_fragments": self.discarded or None,
            "workers/restarts": self.restarts,
            "workers/updates": self.updates,
        }
        for worker in self.workers:
            told |= {
                f"worker_{worker.number}/env_steps_per_s": worker.env_steps_per_s,
                f"worker_{worker.number}/waits": worker.waits,
                f"worker_{worker.number}/policy_lag": worker.policy_lag,
                f"worker_{worker.number}/restarts": worker.restarts,
            }
        return {tag: float(value) for tag, value in told.items() if value is not None}


class Source(Protocol):
    """Delivers fragments. Implementations differ in where environments and acting live."""

    #: Whether the run cannot go on without one of its workers, and has to be taken up again.
    fragile: bool = False

    def collect(self) -> Batch:
        """The next fragment ``[T, N]``; its tensors are valid until the next call."""

    def idle(self) -> bool:
        """Whether the learner may make updates that nobody is owed, since no fragment waits."""
        return False

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

    def standing(self) -> Standing | None:
        """How the workers did since the last call; ``None`` where there are none."""
        return None

    def timed(self) -> list[tuple[Any, str, str]]:
        """Methods to be timed in a profile: owner, name, and the activity it stands for."""
        return []

    def elsewhere(self) -> dict[str, float]:
        """Seconds that workers have spent by activity, over the whole run."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue as if never interrupted."""

    def given_up(self, env_steps: int) -> dict[str, Any]:
        """A state to go on from with fresh episodes, when a fragment was broken off."""
        return self.state_dict()

    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """Chunks of rows that workers have written into the run's folder, by subfolder."""
        return {}

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`; or, not restoring, with fresh episodes."""

    def close(self) -> None:
        """Release environments and processes."""
