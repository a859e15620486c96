"""The only training loop. A mode is a choice of source and of the learner's apply rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.source import Source
from coach.telemetry.telemetry import Telemetry


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


def train(
    source: Source,
    memory: Memory,
    learner: Learner,
    clock: Clock,
    log: Telemetry,
    after_fragment: Callable[[int], None],
) -> None:
    """Collect, remember, learn, publish, until the clock says so.

    Args:
        after_fragment: called with the number of steps just taken; evaluates and checkpoints.
    """
    while not clock.finished:
        fragment = source.collect()  # [T, N]
        begin = perf_counter()
        memory.write(fragment)
        clock.env_steps += fragment.steps
        for batch in memory.batches(learner.prepare):  # exactly the updates now owed
            update = learner.step(batch, clock.env_steps)
            memory.feedback(batch, update.priority)
            log.update(update.metrics)
        learner.agent.observe(fragment)
        source.publish(learner.agent.policy, learner.version)
        log.fragment(clock.env_steps, fragment, source.report(), perf_counter() - begin)
        after_fragment(fragment.steps)
