"""From plain settings to the objects of a run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from coach.architectures.network import Network
from coach.core.agent import Agent
from coach.core.compiling import Compiling
from coach.core.device import place
from coach.core.errors import CoachError, ResourceError, SettingError
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.optimizer import Optimizer
from coach.core.schema import Built, build, build_part, parameters
from coach.core.source import Source
from coach.core.spec import Spec
from coach.environments.calls import close
from coach.environments.making import EnvironmentSettings
from coach.runners.clock import Clock
from coach.runners.exchange import Portion
from coach.runners.modes import (
    Scene,
    gradient_workers,
    make_clock,
    make_share,
    make_source,
    make_threads,
)
from coach.runners.process import prepare_to_learn
from coach.runners.seeds import derived_seed
from coach.runners.settings import (
    EvaluationSettings,
    RunSettings,
    TargetSettings,
    check_together,
)


@dataclass
class Experiment:
    """Everything a preset describes, built and checked; nothing has been stepped yet.

    ``plain`` holds the same settings as YAML values with all defaults filled in, ``note`` says in
    words how the work is spread.
    """

    environment: EnvironmentSettings
    run: RunSettings
    evaluation: EvaluationSettings
    target: TargetSettings | None
    agent: Agent
    memory: Memory
    learner: Learner
    source: Source
    clock: Clock
    portion: Portion
    fragment_length: int
    note: str
    plain: dict[str, Any]


def build_experiment(
    settings: Mapping[str, Any],
    plugins: list[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
    portion: Portion | None = None,
) -> Experiment:
    """Build a run from a preset's settings.

    Args:
        settings: plain sections.
        plugins: what worker processes import to know the user's own parts.
        say: told about failures of workers.
        portion: the part of a worker that exchanges gradients; left out, the run's own.

    Raises:
        SettingError: anything in the settings that cannot be, with its key path.
        ResourceError: the memory would not fit into this machine's RAM.
        CoachError: a worker process is only importing the script that started it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise CoachError(
            "A worker process imports the script that started it, which then trains once more.",
            "Put what the script does under `if __name__ == '__main__':`.",
        )
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
    partner = portion is not None
    portion = portion or Portion(0, gradient_workers(run))
    device = choose_device(run.device, portion.number)
    torch.set_num_threads(1)  # weights are drawn alike whatever the machine
    prepare_to_learn()

    spec = spec_of(environment)
    torch.manual_seed(derived_seed(run.seed, "weights"))
    agent_built = build_agent(settings["agent"], spec)
    agent: Agent = place(agent_built.value, device)
    _check_reward_scale(agent)
    memory, plain["memory"] = _build_memory(
        settings["memory"], spec, agent, run, portion, (lambda _: None) if partner else say
    )
    plain["agent"] = agent_built.plain
    if portion.workers > 1:  # their memories belong to the run, on whatever machine it goes on
        plain["run"]["workers"] = portion.workers
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
    threads = make_threads(run, portion, device, agent, say)
    seed = derived_seed(run.seed, portion.stream("learner"))
    compiling = Compiling(run.compile, device, run.steps, say)
    learner = Learner(
        agent, default.value, overrides, seed=seed, record=run.record, threads=threads,
        compiling=compiling, priorities=memory.wants_priorities, say=say,
        average_over=evaluation.average_over,
    )  # fmt: skip
    fragment_length = run.fragment_length or memory.fragment_length
    memory.check_fragments(fragment_length)
    clock = make_clock(run, portion)
    scene = Scene(
        environment,
        spec,
        learner,
        agent_built.plain,
        build_experiment,
        dict(settings),
        run,
        fragment_length,
        plugins or [],
        say,
        clock,
        portion,
        memory.order,
    )
    source, note = (make_share(scene), "") if partner else make_source(scene)
    note = "\n".join(filter(None, [note, *_doubts(agent)]))
    return Experiment(
        environment,
        run,
        evaluation,
        target,
        agent,
        memory,
        learner,
        source,
        clock,
        portion,
        fragment_length,
        note,
        plain,
    )


def _doubts(agent: Agent) -> list[str]:
    """What the agent's networks read by a guess, each with the setting that decides it."""
    found = []
    for name, module in agent.named_modules():
        if isinstance(module, Network):
            built = "key" in vars(module)
            default = f"agent.{name}" if name in parameters(type(agent)) else module.key
            found += module.doubts(module.key if built else default)
    return list(dict.fromkeys(found))


def build_agent(settings: Any, spec: Spec) -> Built[Any]:
    """The agent of a preset's settings.

    Raises:
        SettingError: the settings do not fit.
        ResourceError: its networks do not fit into memory.
    """
    try:
        return build_part("agent", settings, "agent", spec=spec)
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        raise ResourceError(
            f"agent: its networks do not fit into memory: {str(error).splitlines()[0]}",
            "Choose smaller ones.",
        ) from error


def spec_of(environment: EnvironmentSettings) -> Spec:
    """Its spaces, which must be the same where the policy is judged."""
    judged = (environment, environment.judging())
    specs: list[Spec] = []
    for settings in judged[: 1 + bool(environment.evaluation_kwargs)]:
        try:
            probe = settings.make()
        except SettingError as error:
            if not specs:
                raise
            # The environment itself could be made, so what differs is at fault.
            key = error.key.replace("environment.kwargs", "environment.evaluation_kwargs")
            raise SettingError(key, error.text, error.remedy) from error
        specs.append(Spec(probe.observation_space, probe.action_space))
        close(probe)
    if specs[0] != specs[-1]:
        raise SettingError(
            "environment.evaluation_kwargs",
            f"there the spaces are {specs[-1].observation} and {specs[-1].action}, while training "
            f"has {specs[0].observation} and {specs[0].action}",
            "Change only what leaves observations and actions as they are.",
        )
    return specs[0]


def choose_device(name: str, number: int = 0) -> torch.device:
    """The torch device for a name; "auto" takes a GPU if there is one.

    Args:
        name: auto, or what torch calls it.
        number: of the worker; "auto" and "cuda" spread workers over all GPUs.

    Raises:
        SettingError: the device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device == torch.device("cuda") and torch.cuda.device_count() > 1:
            device = torch.device("cuda", number % torch.cuda.device_count())
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            "run.device",
            f"'{name}' cannot be used here: {str(error).splitlines()[0]}",
            "Use --device auto or cpu; cuda, mps and xpu need a build of torch for them.",
        ) from error
    return device


def _build_memory(
    settings: Any,
    spec: Spec,
    agent: Agent,
    run: RunSettings,
    portion: Portion,
    say: Callable[[str], None],
) -> tuple[Memory, dict[str, Any]]:
    """The memory of a portion of the run, and the settings of the whole run's."""
    injected = {
        "spec": spec,
        "num_envs": run.envs,
        "seed": derived_seed(run.seed, portion.stream("memory")),
        "sequences": _needs_sequences(agent),
        "episode_returns": agent.episode_returns,
        "kept_extras": agent.kept_extras,
        "future_offsets": agent.future_offsets,
        "future_key": agent.future_key,
    }
    whole = build_part("memory", settings, "memory", **injected)
    try:
        whole.value.check_settings(say)
    except SettingError as error:
        raise error.under("memory") from None
    if portion.workers == 1:
        return whole.value, whole.plain
    injected["num_envs"] = len(portion.share(run.envs))
    try:
        mine = whole.value.divided(whole.plain, portion.workers, together=run.mode == "sync")
    except SettingError as error:
        raise error.under("memory") from None
    return build_part("memory", mine, "memory", **injected).value, whole.plain


def _needs_sequences(agent: Agent) -> bool:
    return agent.sequences or agent.initial_state(1) is not None


def _check_reward_scale(agent: Agent) -> None:
    """Refuse reward statistics that nobody reads: `Agent.prepare` reads those of the policy."""
    if type(agent).prepare is not Agent.prepare:
        return
    for name, part in agent.named_children():
        if part is not agent.policy and getattr(part, "reward_scale", None) is not None:
            raise SettingError(
                f"agent.{name}.normalize_rewards",
                "rewards are scaled by the statistics of the network that acts, so these would "
                "never be read",
                "Set normalize_rewards of that network instead, and remove it here.",
            )


def _check_memory(agent: Agent, memory: Memory) -> None:
    if memory.order not in agent.learns_from:
        raise SettingError(
            "memory.type",
            f"agent {getattr(agent, 'registered_name', type(agent).__name__)} learns from a "
            f"{' or '.join(agent.learns_from)} memory, not from a {memory.order} memory",
            f"Set memory.type to {agent.learns_from[0]}.",
        )
    if _needs_sequences(agent) and not memory.sequences:
        raise SettingError(
            "memory.type",
            "this agent learns from whole sequences of steps, as recurrent policies do, but a "
            f"{memory.order} memory hands out single ones",
            "Set memory.type to rollout, or agent.network.middleware to one without memory.",
        )
    if agent.initial_state(1) is not None and not agent.unrolls:
        raise SettingError(
            "agent.network.middleware",
            f"agent {getattr(agent, 'registered_name', type(agent).__name__)} does not carry what "
            "a network remembers along the steps it learns from",
            "Choose a middleware without memory, or agent r2d2.",
        )
    if agent.episode_returns and not getattr(memory, "episode_returns", False):
        raise SettingError(
            "memory.type",
            "this agent mixes long returns into its targets, which a "
            f"{getattr(memory, 'registered_name', type(memory).__name__)} memory does not find",
            "Set memory.type to replay, or remove agent.monte_carlo.",
        )
    if not agent.reads_rewards and getattr(memory, "n_step", 1) > 1:
        raise SettingError(
            "memory.n_step",
            f"agent {getattr(agent, 'registered_name', type(agent).__name__)} as it is set never "
            "reads the rewards that this would sum",
            "Remove it.",
        )
    if agent.kept_extras and not getattr(memory, "kept_extras", ()):
        raise SettingError(
            "memory.type",
            f"this agent stores {', '.join(agent.kept_extras)} with every step, which a "
            f"{getattr(memory, 'registered_name', type(memory).__name__)} memory does not keep",
            "Set memory.type to replay.",
        )
    if agent.future_offsets and not getattr(memory, "future_offsets", ()):
        raise SettingError(
            "memory.type",
            "this agent learns from later observations, but a "
            f"{getattr(memory, 'registered_name', type(memory).__name__)} memory does not look "
            "ahead",
            "Set memory.type to replay.",
        )
    free = psutil.virtual_memory().available
    if memory.nbytes > 0.9 * free:
        raise ResourceError(
            f"memory: this preset needs {memory.nbytes / 2**30:.1f} GiB for its memory, but only "
            f"{free / 2**30:.1f} GiB of RAM are free.",
            "Lower memory.capacity (replay) or memory.horizon (rollout), or run.envs.",
        )
