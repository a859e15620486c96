"""The only training loop. A mode is a choice of source and of the learner's apply rule."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from coach.core.errors import InterruptedRunError
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.source import Source
from coach.runners.clock import Clock
from coach.runners.updates import updates
from coach.telemetry.telemetry import Telemetry


def train(
    source: Source,
    memory: Memory,
    learner: Learner,
    clock: Clock,
    log: Telemetry,
    after_fragment: Callable[[], None],
) -> None:
    """Collect, remember, learn, publish, until the clock says so.

    Args:
        after_fragment: evaluates and checkpoints when it is time.

    Raises:
        InterruptedRunError: a signal broke off the fragment, or the updates that are owed for it.
    """
    while not clock.finished:
        clock.collecting = clock.breakable = True
        fragment = source.collect()  # [T, N]
        clock.breakable = clock.collecting = False
        begin = perf_counter()
        fragment = learner.agent.receive(fragment)
        memory.write(fragment)
        clock.advance(fragment.steps)
        for update in updates(learner, memory, source.idle, clock.env_steps):  # those now owed
            log.update(update.metrics)
            if clock.urgent:
                raise InterruptedRunError
        learner.agent.observe(fragment)
        source.publish(learner.agent.policy, learner.version)
        log.fragment(clock.env_steps, fragment, source.report(), perf_counter() - begin)
        after_fragment()
