"""What a worker does that exchanges gradients: the training loop, without files."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from coach.core.batch import Batch
from coach.core.device import go_on
from coach.core.source import Report
from coach.core.state import prefixed, under
from coach.runners.actor import Actor
from coach.runners.channel import Channel
from coach.runners.exchange import (
    Averaged,
    GradientWork,
    Hogwild,
    SharedClock,
    agree_on,
    check_alike,
    join_group,
)
from coach.runners.journal import Journal
from coach.runners.ledger import Ledger
from coach.runners.loop import train
from coach.runners.notices import NOTICES, packed
from coach.runners.storage import freeze, thaw
from coach.telemetry.telemetry import Telemetry
from torch import Tensor

if TYPE_CHECKING:
    from coach.runners.experiment import Experiment

READY, SAVE, STATE = b"r", b"s", b"t"
SAVING, STOPPING = 1, 2  # flags that averaging workers agree on after every fragment
# Worker 0 evaluates and writes checkpoints while the others wait for it; they end with its process.
_PATIENCE_SECONDS = 24 * 3600.0


def replay_folder(number: int) -> str:
    """Where in a run's folder a worker keeps the rows of its memory."""
    return f"replay-worker-{number}"


def serve_gradients(channel: Channel, work: GradientWork) -> None:
    """Train until the run ends, and hand over this worker's state whenever it is to be saved."""
    portion = work.portion
    experiment = work.build(work.settings, portion=portion)
    clock, source = experiment.clock, cast(Actor, experiment.source)
    ledger = Ledger.allocate(
        portion.workers, experiment.run.envs, experiment.fragment_length, work.ledger.zeros
    )
    keeping = Keeping(channel, experiment, work.folder / replay_folder(portion.number))
    keeping.load(work)
    clock.begin(work.base)
    channel.send(READY)
    learner = experiment.learner
    if isinstance(clock, SharedClock):
        assert work.parameters is not None
        groups, every = learner.groups, experiment.run.exchange_every
        learner.apply = keeping.weights = Hogwild(groups, work.parameters.zeros, every)
        keeping.weights.follow()
        clock.count_in(ledger)
    else:
        join_group(work.meeting, portion, learner.device, _PATIENCE_SECONDS)
        check_alike(learner.groups, learner.device)
        learner.apply = Averaged(portion.workers)
    share = portion.share(experiment.run.envs)
    source.beat = ledger.beats[portion.number : portion.number + 1]

    def after_free_fragment() -> None:
        source.ctx.step = clock.env_steps
        ledger.episode[share.start : share.stop] = source.envs.episode
        keeping.tick()
        if channel.waiting():  # raises once the run is gone
            channel.receive()
            keeping.hand_over()

    def after_common_fragment() -> None:
        keeping.tick()
        flags = agree_on(0, experiment.learner.device)
        clock.agree(bool(flags & STOPPING))
        if flags & SAVING:
            keeping.hand_over()

    log = cast(Telemetry, Posting(ledger, portion.number, channel))
    free = isinstance(clock, SharedClock)
    after_fragment = after_free_fragment if free else after_common_fragment
    try:
        train(source, experiment.memory, experiment.learner, clock, log, after_fragment)
        while True:  # until the run hangs up
            channel.receive()
            keeping.hand_over()
    finally:
        source.close()


class Posting:
    """Stands in for telemetry: posts episodes where the run finds them.

    Args:
        ledger: of all workers.
        number: of this one.
        channel: to the run, for what is to be said about environments.
    """

    def __init__(self, ledger: Ledger, number: int, channel: Channel) -> None:
        self.ledger, self.number, self.channel = ledger, number, channel
        self.fragments = 0

    def update(self, metrics: Mapping[str, Tensor]) -> None:
        """Count it; metrics are those of worker 0."""
        self.ledger.updates[self.number] += 1
        self.ledger.beats[self.number] += 1

    def fragment(self, env_steps: int, fragment: Batch, report: Report, seconds: float) -> None:
        """Post the episodes that ended."""
        self.fragments += 1
        self.ledger.post(self.number, self.fragments, report.episodes)
        if report.notices or report.dropped:
            self.channel.send(NOTICES, report.dropped, data=packed(report.notices))


class Keeping:
    """Saves and restores what a worker has that the others have not.

    Args:
        channel: to the run, which writes the checkpoints.
        experiment: the worker's streams, memory and environments.
        folder: for the rows of its memory, which are too many for the channel.
    """

    def __init__(self, channel: Channel, experiment: Experiment, folder: Path) -> None:
        self.channel, self.experiment = channel, experiment
        self.journal = Journal(folder, tag=secrets.token_hex(4))
        self.weights: Hogwild | None = None  # that it shares with others, if it does

    def load(self, work: GradientWork) -> None:
        """Go on from a saved state; with none, from worker 0's weights alone."""
        experiment, state = self.experiment, thaw(work.state)
        stream = experiment.agent.rng.get_state()
        # Those that average are alike, so only worker 0 saves what it has learned.
        own = under("learner/", state)
        experiment.learner.load_state_dict(own or thaw(work.learner))
        go_on(experiment.agent.rng, state.get("rng", stream))
        if "rng" in state:
            self.journal.take_over(state["chunks"], state["saved"])
            # What is damaged was said by the run, which has looked at all chunks.
            self.journal.restore(experiment.memory, under("memory/", state), lambda _: None)
        source = under("source/", state)
        if source:
            experiment.source.load_state_dict(source, work.repeat)

    def tick(self) -> None:
        """Move rows to disk now and then, so that handing over never takes long."""
        self.journal.append_if_many(self.experiment.memory)

    def hand_over(self) -> None:
        """Send the worker's state to the run, which removes chunks that no checkpoint needs."""
        memory, learned = self.experiment.memory, {}
        if self.weights is not None:
            self.weights.exchange()
            learned = self.experiment.learner.state_dict()
        if memory.pending_bytes(self.journal.saved) > 0:
            self.journal.append(memory)
        self.journal.drop_old(memory)
        state = {
            "rng": self.experiment.agent.rng.get_state(),
            "chunks": self.journal.chunks,
            "saved": self.journal.saved,
            **prefixed("learner/", learned),
            **prefixed("memory/", memory.state_dict()),
            **prefixed("source/", self.experiment.source.state_dict()),
        }
        self.channel.send(STATE, data=freeze(state))
