"""Runs an agent's objectives: losses, gradients, clipping, steps. Owns optimisers and version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from coach.core.agent import Agent, Loss, Objective
from coach.core.apply import Apply, Local
from coach.core.batch import Batch
from coach.core.errors import SettingError, nearest
from coach.core.flat import flat_groups
from coach.core.optimizer import Optimizer, Stepper
from coach.core.state import prefixed, under
from torch import Tensor

#: Metrics are computed for one in so many updates: they cost a tenth of an update of a small
#: network. It is a prime, so that every position within a rollout's epochs gets its turn.
MEASURE_EVERY = 7


@dataclass
class Update:
    """What one update brought.

    Args:
        priority: ``[B]`` new priorities for the memory, if an objective set them.
        metrics: scalar tensors by name; empty for most updates, see `MEASURE_EVERY`.
    """

    priority: Tensor | None
    metrics: dict[str, Tensor]


class Learner:
    """Minimises an agent's objectives, in their order and cadence.

    The parameters that an objective names are moved into one flat vector per name, each with an
    optimiser of its own. Gradients are taken with respect to these only.

    Args:
        agent: on the device where it shall learn.
        optimizer: settings for every module.
        overrides: settings for some modules, by the names that objectives minimise.
        apply: what becomes of gradients.
        seed: of the objectives' random stream.
    """

    def __init__(
        self,
        agent: Agent,
        optimizer: Optimizer,
        overrides: Mapping[str, Optimizer] | None = None,
        apply: Apply | None = None,
        seed: int = 0,
    ) -> None:
        self.agent, self.apply = agent, apply or Local()
        self.objectives: list[Objective] = agent.objectives()
        if not self.objectives:
            raise SettingError(
                "agent",
                f"{type(agent).__name__} has no objective",
                "Mark a method that returns a Loss with @objective(minimises=...).",
            )
        names = list(dict.fromkeys(n for o in self.objectives for n in o.minimises))
        for name in overrides or {}:
            if name not in names:
                raise SettingError(
                    f"optimizers.{name}", f"no objective minimises '{name}'", nearest(name, names)
                )
        self.groups = flat_groups(agent, names)
        self.trained = {
            goal.name: [name for name in goal.minimises if name in self.groups]
            for goal in self.objectives
        }
        self.settings = {name: (overrides or {}).get(name, optimizer) for name in self.groups}
        self.steppers: dict[str, Stepper] = {
            name: self.settings[name].build(group.vector) for name, group in self.groups.items()
        }
        self.device = next(iter(self.groups.values())).vector.device
        agent.rng = torch.Generator(self.device).manual_seed(seed)
        self.version = 0

    def prepare(self, batch: Batch) -> Batch:
        """What the memory passes every batch through: to the device, then the agent's own."""
        if self.device.type == "cuda":  # pinned memory is copied while this process goes on
            batch = batch.pinned()
        with torch.no_grad():
            return self.agent.prepare(batch.to(self.device, non_blocking=True))

    def step(self, batch: Batch, env_steps: int) -> Update:
        """One update on a minibatch; learning rates are those of ``env_steps``."""
        priority: Tensor | None = None
        metrics: dict[str, Tensor] = {}
        measured = self.version % MEASURE_EVERY == 0
        for goal in self.objectives:
            if self.version % goal.every:
                continue
            loss: Loss = getattr(self.agent, goal.name)(batch)
            value = loss.value if batch.weight is None else loss.value * batch.weight
            value = value.mean()
            norms = self._descend(goal, value, env_steps)
            priority = loss.priority if loss.priority is not None else priority
            if measured:
                metrics |= norms | {f"loss/{goal.name}": value.detach()}
                with torch.no_grad():
                    metrics |= {name: metric.detach() for name, metric in loss.metrics().items()}
        self.version += 1
        self.agent.after_update()
        return Update(priority, metrics)

    def learning_rates(self, env_steps: int) -> dict[str, float]:
        """Learning rate of every module at a step."""
        return {name: settings.lr(env_steps) for name, settings in self.settings.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, version and random stream, as tensors and JSON values."""
        state: dict[str, Any] = {"version": self.version, "rng": self.agent.rng.get_state()}
        state |= prefixed("agent.", self.agent.state_dict())
        for name, stepper in self.steppers.items():
            state |= prefixed(f"optimizer.{name}.", stepper.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.version = state["version"]
        self.agent.rng.set_state(state["rng"].cpu())
        self.agent.load_state_dict(under("agent.", state))
        for name, stepper in self.steppers.items():
            stepper.load_state_dict(under(f"optimizer.{name}.", state))

    def _descend(self, goal: Objective, value: Tensor, env_steps: int) -> dict[str, Tensor]:
        names = self.trained[goal.name]
        groups = [self.groups[name] for name in names]
        parameters = [p for group in groups for p in group.parameters]
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        norms, begin = {}, 0
        for name, group in zip(names, groups):
            end = begin + len(group.parameters)
            group.set_gradients(gradients[begin:end])
            begin = end
            settings = self.settings[name]
            norms[f"grad_norm/{name}"] = self.apply(
                self.steppers[name], group, settings.lr(env_steps), settings.max_grad_norm
            )
        return norms
