"""The updates owed for a fragment, one after the other or, on an accelerator, one ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from coach.core.batch import Batch
from coach.core.device import Fetching, is_accelerator
from coach.core.learner import Learner, Update
from coach.core.memory import Memory


def updates(
    learner: Learner, memory: Memory, more: Callable[[], bool], env_steps: int
) -> Iterator[Update]:
    """Make exactly the updates that ``memory`` owes, and further ones while ``more`` says so.

    On an accelerator an update runs while this process goes on, so the next minibatch is drawn
    meanwhile, and priorities are filed one update late, when they have arrived.
    """
    batches = memory.batches(learner.prepare, more)
    if is_accelerator(learner.device):
        return one_ahead(batches, learner, memory, env_steps)
    return one_by_one(batches, learner, memory, env_steps)


def one_by_one(
    batches: Iterator[Batch], learner: Learner, memory: Memory, env_steps: int
) -> Iterator[Update]:
    """Draw, update, file priorities."""
    for batch in batches:
        update = learner.step(batch, env_steps)
        memory.feedback(batch, update.priority)
        yield update


def one_ahead(
    batches: Iterator[Batch], learner: Learner, memory: Memory, env_steps: int
) -> Iterator[Update]:
    """Draw a minibatch while the update before it runs; file priorities while the next one does."""
    before: tuple[Batch, Fetching | None] | None = None

    def file_priorities() -> None:
        if before is not None:
            batch, priority = before
            memory.feedback(batch, None if priority is None else priority.result())

    for batch in batches:
        update = learner.step(batch, env_steps)
        priority = None if update.priority is None else Fetching(update.priority)
        file_priorities()
        before = (batch, priority)
        yield update
    file_priorities()
