"""The real objects of a run, small: agent, memory, learner and actor of any registered agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from coach.core.agent import Action, Agent
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.registry import entries, find
from coach.core.schema import build_part, parameters
from coach.core.source import Report
from coach.core.spec import Spec
from coach.environments.serial import SerialEnvs
from coach.optimizers.adam import Adam
from coach.runners.actor import Actor
from coach.runners.clock import Clock
from coach.runners.loop import train
from gymnasium import spaces
from worlds import ACTIONS, OBSERVATIONS, ours

#: Whatever memory is built takes of these what it knows.
SMALL_MEMORY = {
    "capacity": 200,
    "batch_size": 8,
    "warmup": 8,
    "updates_per_step": 0.25,
    "horizon": 8,
    "episodes": 8,
    "epochs": 2,
    "discount": 0.9,
}

#: Settings of agents that search much by default; so small, dictionaries overflow as well.
SMALL_AGENTS: dict[str, dict[str, Any]] = {
    "nec": {"network": {"heads": {"q": {"type": "dnd_q", "capacity": 50, "neighbours": 5}}}}
}


class Still(Agent):
    """Always the same action, one of numbers; enough to drive an actor."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.layer = torch.nn.Linear(1, 1)

    @property
    def policy(self) -> torch.nn.Module:
        return self.layer

    def act(self, obs: Any, state: Any, ctx: Any) -> Action:
        shape = len(ctx.env_ids), *self.spec.action.shape
        return Action(torch.zeros(shape, dtype=torch.int64))


class Ladder(gym.Env[Any, Any]):
    """Pays 1 for each of ``length`` steps; half of the episodes terminate, half are cut off.

    The observation is ``[steps taken, 1 if the episode will terminate]``, so every row tells by
    itself what must be found in it.

    Args:
        action: action space; actions change nothing.
        length: steps of an episode.
        terminates: how episodes end; left out, by a draw.
    """

    def __init__(
        self, action: spaces.Space[Any], length: int = 3, terminates: bool | None = None
    ) -> None:
        self.observation_space = spaces.Box(0, 1_000, (2,), np.float32)
        self.action_space, self.length, self.terminates = action, length, terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        drawn = bool(self.np_random.integers(2))
        self.steps, self.ends = 0, drawn if self.terminates is None else self.terminates
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps >= self.length
        return self._observe(), 1.0, over and self.ends, over and not self.ends, {}

    def _observe(self) -> Any:
        return np.array([self.steps, self.ends], np.float32)


@dataclass
class Log:
    """Stands in for telemetry: keeps what the loop tells."""

    metrics: list[Mapping[str, torch.Tensor]] = field(default_factory=list)

    def update(self, metrics: Mapping[str, torch.Tensor]) -> None:
        self.metrics.append(metrics)

    def fragment(self, env_steps: int, fragment: Batch, report: Report, seconds: float) -> None:
        pass


@dataclass
class Loop:
    """What `coach.runners.experiment.Experiment` holds, as far as learning goes."""

    agent: Agent
    memory: Memory
    learner: Learner
    actor: Actor
    log: Log

    def train(self, steps: int = 48) -> Log:
        """Run the training loop for ``steps`` more environment steps."""
        clock = Clock(self.actor.ctx.step + steps, self.actor.ctx.step)
        train(self.actor, self.memory, self.learner, clock, self.log, lambda: None)  # type: ignore[arg-type]
        return self.log

    def batch(self) -> Batch:
        """A minibatch as the objectives get it, of fresh fragments."""
        while True:
            self.memory.write(self.actor.collect())
            for batch in self.memory.batches(self.learner.prepare):
                return batch


def small_loop(
    agent: Any,
    task: Callable[[], gym.Env[Any, Any]],
    memory: str | None = None,
    num_envs: int = 2,
    seed: int = 0,
    lr: float = 1e-3,
    **memory_settings: Any,
) -> Loop:
    """Everything that ``agent`` (a name or settings) needs to learn ``task``."""
    envs = SerialEnvs(task, num_envs, seed)
    torch.manual_seed(seed)
    built: Agent = build_part("agent", small_agent(agent), "agent", spec=envs.spec).value
    name = memory or memories_of(type(built))[0]
    kept = small_memory(name, envs, seed, built.episode_returns, **memory_settings)
    learner = Learner(built, Adam(lr=lr), seed=seed)
    actor = Actor(built, envs, max(kept.fragment_length, 8), seed)
    return Loop(built, kept, learner, actor, Log())


def small_agent(agent: str | dict[str, Any]) -> dict[str, Any]:
    """Settings of a registered agent that takes little time; those that are given count."""
    given = {"type": agent} if isinstance(agent, str) else agent
    return {**SMALL_AGENTS.get(given["type"], {}), **given}


def small_memory(
    name: str, envs: SerialEnvs, seed: int = 0, episode_returns: bool = False, **settings: Any
) -> Memory:
    """A registered memory that holds little."""
    known = parameters(find("memory", name))
    chosen = {k: v for k, v in {**SMALL_MEMORY, **settings}.items() if k in known}
    given = {"spec": envs.spec, "num_envs": envs.num_envs, "seed": seed}
    given["episode_returns"] = episode_returns
    built: Memory = build_part("memory", {"type": name, **chosen}, "memory", **given).value
    return built


def agents() -> list[str]:
    """Every registered agent, plugins included, that learns from vectors."""
    found = [entry.name for entry in entries("agent")]
    anything = [name for name in found if not find("agent", name).future_key]  # type: ignore[attr-defined]
    return [name for name in anything if ours("agent", name) or served(name)]


def memories_of(agent: type[Agent]) -> list[str]:
    """Every registered memory that an agent can learn from."""
    found = [entry.name for entry in entries("memory")]
    return [name for name in found if find("memory", name).order in agent.learns_from]


@cache
def served(agent: str) -> tuple[str, ...]:
    """The action spaces that an agent takes."""
    found = []
    for name, space in ACTIONS.items():
        try:
            build_part("agent", agent, "agent", spec=Spec(OBSERVATIONS["vector"], space))
        except SettingError:
            continue
        found.append(name)
    return tuple(found)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a module's state."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two states hold the same, bit for bit."""
    return one.keys() == two.keys() and all(
        torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name]
        for name, value in one.items()
    )


@contextmanager
def global_streams_untouched() -> Iterator[None]:
    """Fail if what runs inside draws from torch's or NumPy's global random stream."""
    before = torch.random.get_rng_state(), repr(np.random.get_state())
    yield
    after = torch.random.get_rng_state(), repr(np.random.get_state())
    assert torch.equal(before[0], after[0]), "torch's global stream was used"
    assert before[1] == after[1], "NumPy's global stream was used"
