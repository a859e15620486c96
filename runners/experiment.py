"""From plain settings to the objects of a run."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from coach.core.agent import Agent
from coach.core.errors import ResourceError, SettingError
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.optimizer import Optimizer
from coach.core.schema import build, build_part
from coach.core.spec import Spec
from coach.environments.making import EnvironmentSettings
from coach.environments.serial import SerialEnvs
from coach.runners.actor import Actor
from coach.runners.settings import (
    EvaluationSettings,
    RunSettings,
    TargetSettings,
    check_together,
)


@dataclass
class Experiment:
    """Everything a preset describes, built and checked; nothing has been stepped yet.

    ``plain`` holds the same settings as YAML values with all defaults filled in.
    """

    environment: EnvironmentSettings
    run: RunSettings
    evaluation: EvaluationSettings
    target: TargetSettings | None
    agent: Agent
    memory: Memory
    learner: Learner
    actor: Actor
    plain: dict[str, Any]


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose ("weights", "actor", ...) that shares nothing with the others."""
    sequence = np.random.SeedSequence((seed, zlib.crc32(purpose.encode())))
    return int(sequence.generate_state(1)[0])


def build_experiment(settings: Mapping[str, Any]) -> Experiment:
    """Build a run from a preset's settings.

    Raises:
        SettingError: anything in the settings that cannot be, with its key path.
        ResourceError: the memory would not fit into this machine's RAM.
    """
    plain: dict[str, Any] = {"about": settings.get("about")}

    def section(name: str, cls: type[Any]) -> Any:
        built = build(cls, settings.get(name), name)
        plain[name] = built.plain
        return built.value

    environment: EnvironmentSettings = section("environment", EnvironmentSettings)
    run: RunSettings = section("run", RunSettings)
    evaluation: EvaluationSettings = section("evaluation", EvaluationSettings)
    target = section("target", TargetSettings) if settings.get("target") else None
    check_together(evaluation, target)
    device = choose_device(run.device)
    torch.set_num_threads(run.threads)
    # Moments of weights behind dead units decay to denormal numbers, which are 6 times slower.
    torch.set_flush_denormal(True)

    probe = environment.make()
    spec = Spec(probe.observation_space, probe.action_space)
    probe.close()
    torch.manual_seed(derived_seed(run.seed, "weights"))
    agent_built = build_part("agent", settings["agent"], "agent", spec=spec)
    memory_built = build_part(
        "memory",
        settings["memory"],
        "memory",
        spec=spec,
        num_envs=run.envs,
        seed=derived_seed(run.seed, "memory"),
    )
    agent: Agent = agent_built.value.to(device)
    memory: Memory = memory_built.value
    plain |= {"agent": agent_built.plain, "memory": memory_built.plain}
    _check_memory(agent, memory)

    default = build_part("optimizer", settings.get("optimizer") or "adam", "optimizer")
    overrides: dict[str, Optimizer] = {}
    plain["optimizer"] = default.plain
    for name, value in (settings.get("optimizers") or {}).items():
        # An override without a type changes single settings of the common optimiser.
        whole = {**default.plain, **value} if isinstance(value, dict) else value
        built = build_part("optimizer", whole, f"optimizers.{name}")
        overrides[name] = built.value
        plain.setdefault("optimizers", {})[name] = built.plain
    learner = Learner(agent, default.value, overrides, seed=derived_seed(run.seed, "learner"))
    fragment_length = run.fragment_length or memory.fragment_length
    memory.check_fragments(fragment_length)
    envs = SerialEnvs(environment.factory(), run.envs, derived_seed(run.seed, "environments"))
    actor = Actor(
        agent,
        envs,
        fragment_length,
        derived_seed(run.seed, "actor"),
        device,
    )
    return Experiment(environment, run, evaluation, target, agent, memory, learner, actor, plain)


def choose_device(name: str) -> torch.device:
    """The torch device for a name; "auto" takes a GPU if there is one.

    Raises:
        SettingError: the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            "run.device",
            f"'{name}' cannot be used here: {str(error).splitlines()[0]}",
            "Use --device auto, cpu or, with a CUDA build of torch and a GPU, cuda.",
        ) from error
    return device


def _check_memory(agent: Agent, memory: Memory) -> None:
    if memory.order not in agent.learns_from:
        raise SettingError(
            "memory.type",
            f"agent {getattr(agent, 'registered_name', type(agent).__name__)} learns from a "
            f"{' or '.join(agent.learns_from)} memory, not from a {memory.order} memory",
            f"Set memory.type to {agent.learns_from[0]}.",
        )
    free = psutil.virtual_memory().available
    if memory.nbytes > 0.9 * free:
        raise ResourceError(
            f"memory: this preset needs {memory.nbytes / 2**30:.1f} GiB for its memory, but only "
            f"{free / 2**30:.1f} GiB of RAM are free.",
            "Lower memory.capacity (replay) or memory.horizon (rollout), or run.envs.",
        )
