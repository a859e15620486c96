"""The memory contract: what is learned from, and how often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from coach.core.batch import Batch
from coach.core.errors import CheckpointError, SettingError
from torch import Tensor

Prepare = Callable[[Batch], Batch]


def never() -> bool:
    """Nothing beyond what is owed."""
    return False


class Memory(ABC):
    """Takes fragments, yields the minibatches that are owed for them.

    It is the rate limiter: however experience arrives, the ratio of updates to environment steps
    is the one its settings state.
    """

    kind: ClassVar[str] = "memory"
    injected = frozenset(
        {
            "spec",
            "num_envs",
            "seed",
            "sequences",
            "episode_returns",
            "kept_extras",
            "future_offsets",
            "future_key",
        }
    )
    #: What it holds: "replay" (any policy's transitions) or "rollout" (the current policy's).
    order: ClassVar[str]
    #: Whether minibatches are whole columns of steps, time-major and flattened.
    sequences: bool = False
    #: Steps per environment that suit it best between two looks at the learner.
    fragment_length: int = 1
    #: Whether `feedback` makes anything of the priorities that objectives find; if not, none are.
    wants_priorities: bool = True
    #: Bytes that it takes when full; known before anything is allocated.
    nbytes: int = 0

    @abstractmethod
    def divided(self, settings: dict[str, Any], workers: int, together: bool) -> dict[str, Any]:
        """Settings of one of ``workers`` memories that together stand for this one.

        Args:
            settings: of this one, with all defaults filled in.
            workers: how many there are, each for its share of the environments.
            together: whether all of them take part in every update, each with its part of the
                minibatch; otherwise each makes updates of its own.

        Raises:
            SettingError: something does not divide, with the key of the setting.
        """

    def check_settings(self, say: Callable[[str], None]) -> None:
        """Refuse settings that contradict each other; called once, for the whole run's memory.

        Args:
            say: told what is allowed and hardly meant.

        Raises:
            SettingError: with the key of the setting.
        """

    def check_fragments(self, length: int) -> None:
        """Refuse fragments of ``length`` steps per environment where they cannot serve.

        Raises:
            SettingError: naming ``run.fragment_length``.
        """

    @abstractmethod
    def write(self, fragment: Batch) -> None:
        """Take in a fragment ``[T, N]``.

        Its tensors, and those of batches made of it, belong to the memory until the batches that
        are owed for it have been used up; the caller may then write to them again.
        """

    @abstractmethod
    def batches(self, prepare: Prepare, more: Callable[[], bool] = never) -> Iterator[Batch]:
        """Yield exactly the minibatches owed by now, each passed through ``prepare``.

        Then, while ``more`` says so, further ones that nobody is owed, if it can draw any twice.
        """

    def feedback(self, batch: Batch, priority: Tensor | None) -> None:
        """Hand back the priorities that the objectives found for a minibatch."""

    def monitor(self) -> dict[str, float]:
        """Scalars worth logging, such as fill and age."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything but the stored rows: tensors and JSON values by name."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; stored rows have been given back to `load_rows` before."""

    def pending_bytes(self, saved: list[int]) -> int:
        """Size of the rows written after the positions ``saved``."""
        return 0

    def oldest(self) -> list[int]:
        """Position of the oldest row still held, per stripe."""
        return []

    def rows(self, saved: list[int]) -> tuple[dict[str, Tensor], list[int]]:
        """Stored rows after the positions ``saved`` (empty: from the start), and the new positions.

        Checkpoints append these to a journal, so that each row is written to disk once.
        """
        return {}, saved

    def load_rows(self, rows: dict[str, Tensor]) -> None:
        """Take back what `rows` returned; called in the order it was written."""

    def forget(self, before: list[int]) -> None:
        """Hold no rows before these positions, one per stripe: a damaged disk has lost them.

        Called after `load_state_dict`, with only later rows given to `load_rows`.

        Raises:
            CheckpointError: this memory cannot do with a part of its rows.
        """
        raise CheckpointError(
            f"A {getattr(self, 'registered_name', type(self).__name__)} memory cannot go on with a "
            "part of its rows.",
            "Train again from the preset; the best policy may still be whole (`coach evaluate`).",
        )


def share_of_batch(size: int, workers: int) -> int:
    """Rows of a minibatch that each of ``workers`` brings.

    Raises:
        SettingError: the minibatch cannot be divided.
    """
    if size % workers:
        raise SettingError(
            "batch_size",
            f"a minibatch of {size} cannot be divided among {workers} workers that average "
            "gradients",
            f"Choose a multiple of {workers}, or another number of --workers.",
        )
    return size // workers
