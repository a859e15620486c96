"""What an actor does in the `async` mode: fill free slots, with the newest weights."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from coach.core.agent import Agent
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.environments.making import EnvironmentSettings
from coach.environments.vector import VectorEnv
from coach.runners.actor import Actor, only_act
from coach.runners.board import WeightBoard
from coach.runners.channel import Channel
from coach.runners.lockstep import LockstepEnvs
from coach.runners.notices import packed
from coach.runners.shared import SharedBlock
from coach.runners.slot import Slot
from coach.runners.storage import thaw
from coach.runners.worker import Tolerance, WorkerKind

FREE, FILLED = b"f", b"d"
_NICE = 5  # actors give way to the learner, which all of them depend on


@dataclass(frozen=True)
class Hosting:
    """Who steps the environments of an actor that does not do so itself.

    Args:
        workers: how many.
        kind: process or thread.
        tolerance: how many failures of theirs are put up with.
        timeout: seconds after which a silent one counts as hung.
        plugins: imported by them.
    """

    workers: int
    kind: WorkerKind
    tolerance: Tolerance
    timeout: float
    plugins: list[str]


@dataclass
class ActorWork:
    """What one actor needs.

    Args:
        environment: settings of one environment.
        spec: of one environment.
        agent: plain settings of the agent.
        share: global ids of the actor's environments.
        num_envs: environments over all actors.
        slots: slots of the ring that are the actor's.
        fragment_length: steps per fragment.
        env_seed: of the run; episodes derive theirs from it.
        seed: of the stream that actions are drawn from.
        episode: number of the last episode of each environment.
        acted: example of what the agent records with each action, frozen.
        ring: the actor's slots.
        board: the weights.
        beats: a count of steps for each actor, as a sign of life.
        number: which actor this is.
        actors: how many there are.
        device: where it acts.
        hosting: who steps the environments; ``None`` is the actor itself.
        record: act from recordings.
    """

    environment: EnvironmentSettings
    spec: Spec
    agent: dict[str, Any]
    share: range
    num_envs: int
    slots: int
    fragment_length: int
    env_seed: int
    seed: int
    episode: list[int]
    acted: bytes
    ring: SharedBlock
    board: SharedBlock
    beats: SharedBlock
    number: int
    actors: int
    device: str
    hosting: Hosting | None
    record: bool


def act_for_learner(channel: Channel, work: ActorWork) -> None:
    """Fill every slot that is free with a fragment, until the learner hangs up."""
    if threading.current_thread() is threading.main_thread():
        with suppress(OSError):
            os.nice(_NICE)
    agent: Agent = build_part("agent", work.agent, "agent", spec=work.spec).value
    only_act(agent, work.device, work.record)
    board = WeightBoard(agent.policy, work.board)
    first, count = work.share.start, len(work.share)
    ids = torch.arange(first, first + count)
    state = agent.initial_state(count)
    acted = thaw(work.acted)
    slots = [
        Slot(work.spec, work.fragment_length, ids, acted, state, work.ring.zeros)
        for _ in range(work.slots)
    ]
    beats = work.beats.zeros((work.actors,), torch.int64).numpy()
    envs = _environments(work)
    length, total = work.fragment_length, work.num_envs
    actor = Actor(agent, envs, length, work.seed, work.device, first, total)
    actor.beat = beats[work.number : work.number + 1]
    try:
        actor.load_state_dict({"step": 0, "episode": work.episode})
        while True:
            begin = perf_counter()
            message = channel.receive()
            waited = perf_counter() - begin
            slot = slots[message.value]
            version = board.fetch()
            actor.publish(agent.policy, version)
            actor.fragment, actor.ctx.step = slot.fragment, message.step
            actor.collect()
            report = actor.report()
            slot.version[0] = version
            slot.seconds[:] = report.seconds["env"], report.seconds["act"], waited
            slot.episode[:] = envs.episode
            slot.dropped[0] = report.dropped
            slot.write_episodes(report.episodes)
            channel.send(FILLED, message.value, data=packed(report.notices))
    finally:
        actor.close()


def _environments(work: ActorWork) -> VectorEnv:
    hosting, count = work.hosting, len(work.share)
    if hosting is None:
        return work.environment.vector(count, work.env_seed, work.share.start)
    return LockstepEnvs(
        work.environment,
        work.spec,
        count,
        hosting.workers,
        hosting.kind,
        work.env_seed,
        hosting.tolerance,
        hosting.timeout,
        hosting.plugins,
    )
