"""A mode is a choice of source: which one, how many workers, and whether that can be right."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coach.core.agent import Agent
from coach.core.errors import SettingError
from coach.core.source import Source
from coach.core.spec import Spec
from coach.environments.making import EnvironmentSettings
from coach.environments.serial import SerialEnvs
from coach.environments.vector import VectorEnv
from coach.runners.actor import Actor
from coach.runners.clock import Clock
from coach.runners.lockstep import LockstepEnvs
from coach.runners.placement import Placement, choose_placement
from coach.runners.ring import Actors, RingSource
from coach.runners.seeds import derived_seed
from coach.runners.settings import RunSettings
from coach.runners.worker import Tolerance, WorkerKind


@dataclass(frozen=True)
class Scene:
    """What a source is made of.

    Args:
        environment: settings of one environment.
        spec: of one environment.
        agent: the learner's.
        agent_settings: plain settings to build it from once more.
        run: how to run.
        fragment_length: steps per environment and fragment.
        plugins: imported by worker processes.
        say: told about failures of workers.
        clock: of the run.
    """

    environment: EnvironmentSettings
    spec: Spec
    agent: Agent
    agent_settings: dict[str, Any]
    run: RunSettings
    fragment_length: int
    plugins: list[str]
    say: Callable[[str], None]
    clock: Clock


def make_source(scene: Scene) -> tuple[Source, str]:
    """The source for the mode of a run, and in words what it is.

    Raises:
        SettingError: the mode cannot be right for this agent, or the workers do not fit.
    """
    run = scene.run
    if run.mode == "single":
        if run.workers not in (None, 1):
            raise SettingError(
                "run.workers",
                f"{run.workers} workers in mode single, which has none",
                "Add --mode sync or --mode async.",
            )
        return _actor(scene, _serial(scene)), ""
    workers = run.workers or min(run.envs, os.cpu_count() or 1)
    if workers > run.envs:
        raise SettingError(
            "run.workers",
            f"{workers} workers cannot share {run.envs} environment{'s' * (run.envs > 1)}",
            f"Lower it, or add --set run.envs={workers}.",
        )
    if run.mode == "sync":
        placement = _placement(scene, workers)
        envs = _lockstep(scene, workers, placement.kind) if placement.kind else _serial(scene)
        return _actor(scene, envs), f"Mode sync: {placement.words}"
    return _ring(scene, workers)


def _actor(scene: Scene, envs: VectorEnv) -> Actor:
    device = next(scene.agent.parameters()).device
    seed = derived_seed(scene.run.seed, "actor")
    return Actor(scene.agent, envs, scene.fragment_length, seed, device)


def _serial(scene: Scene) -> SerialEnvs:
    seed = derived_seed(scene.run.seed, "environments")
    return SerialEnvs(scene.environment.factory(), scene.run.envs, seed)


def _lockstep(scene: Scene, workers: int, kind: WorkerKind) -> VectorEnv:
    run = scene.run
    return LockstepEnvs(
        scene.environment,
        scene.spec,
        run.envs,
        workers,
        kind,
        derived_seed(run.seed, "environments"),
        Tolerance(run.max_restarts, scene.say),
        run.worker_timeout,
        scene.plugins,
    )


def _ring(scene: Scene, workers: int) -> tuple[Source, str]:
    run, agent = scene.run, scene.agent
    if agent.max_policy_lag == 0:
        name = getattr(type(agent), "registered_name", type(agent).__name__)
        raise SettingError(
            "run.mode",
            f"agent {name} as it is set learns only from its newest policy, but in mode async "
            "actors run ahead",
            "Use --mode sync; or an agent that corrects for the lag, see docs/modes.md.",
        )
    kind: WorkerKind = "thread" if run.worker_kind == "thread" else "process"
    seeds = [
        derived_seed(run.seed, f"actor {number}" if number else "actor")
        for number in range(workers)
    ]
    actors = Actors(
        scene.environment,
        scene.spec,
        scene.agent_settings,
        run.envs,
        workers,
        run.slots,
        scene.fragment_length,
        kind,
        (derived_seed(run.seed, "environments"), seeds),
        run.worker_timeout,
        scene.plugins,
    )
    source = RingSource(actors, agent, Tolerance(run.max_restarts, scene.say), scene.clock)
    return source, f"Mode async: {workers} actors, one {kind} each"


def _placement(scene: Scene, workers: int) -> Placement:
    if scene.run.worker_kind != "auto":
        kind = scene.run.worker_kind
        return Placement(kind, f"{workers} workers, one {kind} each")
    return choose_placement(scene.environment, scene.run.envs, workers)
