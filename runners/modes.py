"""A mode is a choice of source: which one, how many workers, and whether that can be right."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from coach.core import blas
from coach.core.agent import Agent
from coach.core.device import COLLECTIVES, is_accelerator
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.source import Source
from coach.core.spec import Spec
from coach.core.threads import Threads
from coach.environments.making import EnvironmentSettings
from coach.environments.vector import VectorEnv
from coach.runners.actor import Actor
from coach.runners.actor_process import Hosting
from coach.runners.averaging import AveragingSource
from coach.runners.clock import Clock
from coach.runners.exchange import CommonClock, Portion, SharedClock
from coach.runners.hogwild import HogwildSource
from coach.runners.lockstep import LockstepEnvs
from coach.runners.partners import Partners
from coach.runners.placement import Placement, choose_placement
from coach.runners.process import cpus
from coach.runners.ring import Actors, RingSource
from coach.runners.seeds import derived_seed
from coach.runners.settings import RunSettings
from coach.runners.worker import START_SECONDS, Tolerance, WorkerKind
from torch import nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Scene:
    """What a source is made of.

    Args:
        environment: settings of one environment.
        spec: of one environment.
        learner: of this process.
        agent_settings: plain settings to build the agent from once more.
        build: makes an experiment of the whole preset's settings.
        settings: the whole preset.
        run: how to run.
        fragment_length: steps per environment and fragment.
        plugins: imported by worker processes.
        say: told about failures of workers.
        clock: of the run.
        portion: which of the environments this process has, if gradients are exchanged.
        memory_order: kind of the memory, see `coach.core.memory.Memory.order`.
    """

    environment: EnvironmentSettings
    spec: Spec
    learner: Learner
    agent_settings: dict[str, Any]
    build: Callable[..., Any]
    settings: dict[str, Any]
    run: RunSettings
    fragment_length: int
    plugins: list[str]
    say: Callable[[str], None]
    clock: Clock
    portion: Portion
    memory_order: str

    @property
    def agent(self) -> Agent:
        """The learner's."""
        return self.learner.agent

    @property
    def agent_name(self) -> str:
        """What presets call it."""
        return str(getattr(type(self.agent), "registered_name", type(self.agent).__name__))


def make_source(scene: Scene) -> tuple[Source, str]:
    """The source for the mode of a run, and in words what it is.

    Raises:
        SettingError: the mode cannot be right for this agent, or the workers do not fit.
    """
    run = scene.run
    _check_async_only(run)
    if run.mode == "single":
        if run.workers not in (None, 1):
            raise SettingError(
                "run.workers",
                f"{run.workers} workers in mode single, which has none",
                "Add --mode sync or --mode async.",
            )
        return make_share(scene), ""
    if run.exchange == "gradients":
        return _partners(scene)
    workers = _workers(run)
    if run.mode == "sync":
        placement = _placement(scene, workers)
        envs = (
            _lockstep(scene, workers, placement.kind) if placement.kind else _here(scene, workers)
        )
        return _actor(scene, envs), f"Mode sync: {placement.words}"
    return _ring(scene, workers)


def _check_async_only(run: RunSettings) -> None:
    free = run.mode == "async" and run.exchange == "experience"
    for name, wanted in (
        ("inference", run.inference == "server"),
        ("free_learner", run.free_learner),
    ):
        if wanted and not free:
            raise SettingError(
                f"run.{name}",
                "this needs actors that run ahead of the learner",
                "Add --mode async --exchange experience, or remove it.",
            )


def make_share(scene: Scene) -> Actor:
    """An actor of this process on its portion of the environments: all of them in mode single."""
    return _actor(scene, _here(scene))


def gradient_workers(run: RunSettings) -> int:
    """How many processes learn and exchange gradients; 1 where none are exchanged.

    Raises:
        SettingError: so many cannot share the environments.
    """
    if run.mode == "single" or run.exchange == "experience":
        return 1
    workers = _workers(run)
    if run.workers is None and run.mode == "sync":  # the most that share them equally
        workers = max(n for n in range(1, workers + 1) if run.envs % n == 0)
    if run.mode == "sync" and run.envs % workers:
        raise SettingError(
            "run.workers",
            f"{workers} workers that average gradients need equal shares of the environments, "
            f"which {run.envs} do not give",
            f"Choose a divisor, or add --set run.envs={-(-run.envs // workers) * workers}.",
        )
    return workers


def make_clock(run: RunSettings, portion: Portion) -> Clock:
    """The clock of a process that has this portion of a run."""
    if portion.workers == 1:
        return Clock(run.steps)
    if run.mode == "sync":
        return CommonClock(run.steps, workers=portion.workers)
    return SharedClock(run.steps, number=portion.number)


def make_threads(
    run: RunSettings,
    portion: Portion,
    device: torch.device,
    agent: nn.Module,
    say: Callable[[str], None],
) -> Threads:
    """Sets the number of threads; a choice among those whose CPUs have nothing else to do.

    In mode sync workers wait while the learner learns, in mode async they go on.
    """
    convolves = any(isinstance(module, _CONVOLUTIONS) for module in agent.modules())
    by_torch = convolves or is_accelerator(device) or run.compile is True
    of_products = blas.FASTER and not by_torch
    if run.threads != "auto":
        return Threads(stated=run.threads, of_products=of_products)
    torch.set_num_threads(1)
    if is_accelerator(device) or run.compile is True:  # what is compiled is not watched
        return Threads()
    free = cpus() // portion.workers
    if portion.workers == 1 and run.mode == "async":
        free -= _workers(run)
    return Threads(max(1, free), say, of_products=of_products)


def _workers(run: RunSettings) -> int:
    workers = run.workers or min(run.envs, cpus())
    if workers > run.envs:
        raise SettingError(
            "run.workers",
            f"{workers} workers cannot share {run.envs} environment{'s' * (run.envs > 1)}",
            f"Lower it, or add --set run.envs={workers}.",
        )
    return workers


def _actor(scene: Scene, envs: VectorEnv) -> Actor:
    device = next(scene.agent.parameters()).device
    seed = derived_seed(scene.run.seed, scene.portion.stream("actor"))
    first = scene.portion.share(scene.run.envs).start
    return Actor(
        scene.agent, envs, scene.fragment_length, seed, device, first, num_envs=scene.run.envs
    )


def _here(scene: Scene, threads: int = 1) -> VectorEnv:
    seed = derived_seed(scene.run.seed, "environments")
    share = scene.portion.share(scene.run.envs)
    return scene.environment.vector(len(share), seed, share.start, threads)


def _partners(scene: Scene) -> tuple[Source, str]:
    run, learner, clock = scene.run, scene.learner, scene.clock
    _check_gradients(scene)
    actor = make_share(scene)
    if scene.portion.workers == 1:
        return actor, "One worker has nobody to exchange gradients with."
    partners = Partners(
        scene.build,
        scene.settings,
        scene.portion,
        run.envs,
        scene.fragment_length,
        scene.plugins,
        Tolerance(run.max_restarts, scene.say),
        run.worker_timeout,
    )
    words = f"{scene.portion.workers} workers, one process each"
    if isinstance(clock, SharedClock):
        source = HogwildSource(actor, partners, learner, clock, run.exchange_every)
        return source, f"Mode async: {words}, exchange weights every {run.exchange_every} updates"
    return AveragingSource(
        actor, partners, learner, clock
    ), f"Mode sync: {words}, average gradients"


def _check_gradients(scene: Scene) -> None:
    run = scene.run
    if any(hasattr(module, "refresh") for module in scene.learner.agent.modules()):
        raise SettingError(
            "run.exchange",
            f"agent {scene.agent_name} as it is set keeps running statistics of what it sees, and "
            "every worker would see something else",
            "Use --exchange experience, or set normalize_observations and normalize_rewards to "
            "false in agent.network.",
        )
    if run.worker_kind == "thread":
        raise SettingError(
            "run.worker_kind",
            "threads cannot exchange gradients: they would wait for one another's Python",
            "Leave it out, or use --exchange experience.",
        )
    if run.mode == "async" and is_accelerator(scene.learner.device):
        raise SettingError(
            "run.device",
            f"weights on {scene.learner.device} cannot be shared between processes",
            "Add --device cpu, use --mode sync, or --exchange experience.",
        )
    if scene.learner.device.type not in COLLECTIVES:
        raise SettingError(
            "run.device",
            f"workers cannot average gradients on {scene.learner.device}",
            "Add --device cpu, or use --exchange experience.",
        )


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
        raise SettingError(
            "run.mode",
            f"agent {scene.agent_name} as it is set learns only from its newest policy, but in "
            "mode async actors run ahead",
            "Use --mode sync or --exchange gradients; allow a lag (agent.max_policy_lag of ppo); "
            "or take an agent that corrects for it, see docs/modes.md.",
        )
    if run.free_learner and scene.memory_order != "replay":
        raise SettingError(
            "run.free_learner",
            "a rollout is learned from a stated number of times, so there is nothing to do freely",
            "Remove it, or raise memory.epochs.",
        )
    tolerance = Tolerance(run.max_restarts, scene.say)
    placement = _apart(scene, workers)
    assert placement.kind is not None
    device, hosting, count, kind = "cpu", None, workers, placement.kind
    patience = run.worker_timeout
    words = f"{workers} actors, one {kind} each{placement.words}"
    if run.inference == "server":
        inner = Tolerance(run.max_restarts, scene.say)
        hosting = Hosting(workers, kind, inner, run.worker_timeout, scene.plugins)
        device, count, kind = str(scene.learner.device), 1, "thread"
        # It replaces workers that hang by itself, and is silent meanwhile.
        patience += START_SECONDS
        words = f"one thread acts on {device} for {words.replace('actors', 'workers', 1)}"
    seeds = [
        derived_seed(run.seed, f"actor {number}" if number else "actor") for number in range(count)
    ]
    actors = Actors(
        scene.environment,
        scene.spec,
        scene.agent_settings,
        run.envs,
        count,
        run.slots,
        scene.fragment_length,
        kind,
        (derived_seed(run.seed, "environments"), seeds),
        patience,
        scene.plugins,
        run.free_learner,
        device,
        hosting,
        run.record,
    )
    return RingSource(actors, agent, tolerance, scene.clock), f"Mode async: {words}"


def _apart(scene: Scene, workers: int) -> Placement:
    """Threads or processes for workers that must not be this thread.

    Threads that only step environments may wait for them side by side; actors also run Python
    between two steps, for which threads would queue, unless there is no global lock.
    """
    if scene.run.worker_kind != "auto":
        return Placement(scene.run.worker_kind, "")
    if scene.run.inference == "actors":
        free = not getattr(sys, "_is_gil_enabled", lambda: True)()
        return Placement("thread" if free else "process", "")
    found = choose_placement(scene.environment, scene.run.envs, workers, apart=True)
    return Placement(found.kind, f" ({found.words})")


def _placement(scene: Scene, workers: int) -> Placement:
    backend, kind = scene.environment.backend, scene.run.worker_kind
    if backend != "python":
        if kind == "process":
            raise SettingError(
                "run.worker_kind",
                f"environments of backend {backend} are stepped by its own threads in mode sync",
                "Leave it out, or remove environment.backend.",
            )
        return Placement(None, f"{workers} threads of {backend}'s own step the environments")
    if kind != "auto":
        return Placement(kind, f"{workers} workers, one {kind} each")
    return choose_placement(scene.environment, scene.run.envs, workers)
