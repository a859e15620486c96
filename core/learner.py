"""Runs an agent's objectives: losses, gradients, clipping, steps. Owns optimisers and version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from coach.core.agent import Agent, Loss, Objective
from coach.core.apply import Apply, Local
from coach.core.batch import Batch
from coach.core.compiling import Compiling
from coach.core.device import go_on, is_accelerator
from coach.core.errors import TOO_FAST, CoachError, NotFiniteError, SettingError, nearest
from coach.core.flat import flat_groups
from coach.core.optimizer import Optimizer, Stepper
from coach.core.polyak import PolicyAverage
from coach.core.reach import Reach
from coach.core.recorder import Recorder, recorders_in
from coach.core.state import prefixed, under
from coach.core.stream import drawing_from
from coach.core.threads import Threads
from torch import Tensor

#: Metrics are computed for one in so many updates: they cost a tenth of an update of a small
#: network. It is a prime, so that every position within a rollout's epochs gets its turn.
MEASURE_EVERY = 7


@dataclass
class _Found:
    """What an objective found besides gradients: as in `Loss`, but with its metrics at hand."""

    value: Tensor | None
    priority: Tensor | None
    beside: dict[str, Tensor]
    metrics: dict[str, Tensor] = field(default_factory=dict)


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
        record: run objectives from recordings where that is possible, see docs/recording.md.
        threads: finds out how many CPU threads suit the updates; left out, one.
        compiling: says whether objectives are compiled; left out, they are not.
        priorities: hand on the priorities that objectives find.
        say: told once per objective of parameters that its gradient never reaches; left out, that
            is a warning.
        average_over: updates over which the evaluated policy is averaged; 0 is the newest.
    """

    def __init__(
        self,
        agent: Agent,
        optimizer: Optimizer,
        overrides: Mapping[str, Optimizer] | None = None,
        apply: Apply | None = None,
        seed: int = 0,
        record: bool = True,
        threads: Threads | None = None,
        compiling: Compiling | None = None,
        priorities: bool = True,
        say: Callable[[str], None] | None = None,
        average_over: int = 0,
    ) -> None:
        self.agent, self.apply, self.priorities = agent, apply or Local(), priorities
        self.threads, self.compiling = threads or Threads(), compiling or Compiling()
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
        for goal in self.objectives:
            if not self.trained[goal.name]:
                raise SettingError(
                    "agent",
                    f"objective '{goal.name}' minimises {' and '.join(goal.minimises)}, where no "
                    "parameter can learn",
                    "Leave it out of @objective(minimises=...), or undo requires_grad_(False).",
                )
        self._groups_of = {
            name: [self.groups[each] for each in trained] for name, trained in self.trained.items()
        }
        self.settings = {name: (overrides or {}).get(name, optimizer) for name in self.groups}
        self.steppers: dict[str, Stepper] = {
            name: self.settings[name].build(group.vector) for name, group in self.groups.items()
        }
        self.device = next(iter(self.groups.values())).vector.device
        agent.rng = torch.Generator(self.device).manual_seed(seed)
        self.version = 0
        self._on_cpu = self.device.type == "cpu"
        self.average = PolicyAverage(agent, average_over) if average_over else None
        self._prepares: bool | None = None  # of the agent, once it is known
        self._reach = Reach(agent, say)
        self.recorder = Recorder()
        for recorder in self.recorders:
            recorder.enabled = record and not is_accelerator(self.device)
        self.recorder.enabled &= not self.compiling.on

    @property
    def recorders(self) -> list[Recorder]:
        """The learner's own, and those of the agent's networks."""
        return [self.recorder, *recorders_in(self.agent)]

    def prepare(self, batch: Batch) -> Batch:
        """What the memory passes every batch through: to the device, then the agent's own."""
        if batch.reward.device != self.device:
            batch = batch.to(self.device)
        if self._prepares is None:
            self._prepares = self.agent.prepares
        if not self._prepares:
            return batch
        with torch.no_grad(), drawing_from(self.agent.rng):
            return self.agent.prepare(batch)

    def step(self, batch: Batch, env_steps: int) -> Update:
        """One update on a minibatch; learning rates are those of ``env_steps``.

        Raises:
            NotFiniteError: a gradient or a loss is NaN or infinite. Its step is not taken.
                Gradients are checked where they are limited, losses where gradients are not, and
                both in every update whose metrics are computed. On accelerators this is found
                later, by `checked` and `require_finite`.
        """
        self.compiling.decide(self.version, env_steps)
        with drawing_from(self.agent.rng):
            if self.threads.settled and not self.compiling.on:  # nothing to watch
                return self._step(batch, env_steps)
            with self.threads, self.compiling:
                return self._step(batch, env_steps)

    def learning_rates(self, env_steps: int) -> dict[str, float]:
        """Learning rate of every module at a step."""
        return {name: settings.lr(env_steps) for name, settings in self.settings.items()}

    def require_finite(self) -> None:
        """Stop unless all trained weights are finite; they are fetched.

        Raises:
            NotFiniteError: some are not, by name.
        """
        for name, group in self.groups.items():
            if group.vector.isfinite().all():
                continue
            named = {id(parameter): path for path, parameter in self.agent.named_parameters()}
            for parameter in group.parameters:
                wrong = parameter.detach()[~parameter.isfinite()]
                if len(wrong):
                    what = f"weights of '{name}' ({named.get(id(parameter), name)})"
                    raise NotFiniteError(
                        f"By update {self.version}, {what} became {float(wrong[0])}.", TOO_FAST
                    )

    def checked(self, means: dict[str, float]) -> dict[str, float]:
        """Means of metrics, if losses and norms of gradients among them are finite.

        Raises:
            NotFiniteError: some are not.
        """
        for name, mean in means.items():
            kind, _, which = name.partition("/")
            if kind in ("loss", "grad_norm") and not isfinite(mean):
                what = f"the loss of objective '{which}'"
                if kind == "grad_norm":
                    what = f"the norm of the gradient of '{which}'"
                raise NotFiniteError(f"By update {self.version}, {what} became {mean}.", TOO_FAST)
        return means

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, version and random stream, as tensors and JSON values."""
        state: dict[str, Any] = {"version": self.version, "rng": self.agent.rng.get_state()}
        state |= prefixed("threads.", self.threads.state_dict())
        state |= prefixed("agent.", self.agent.state_dict())
        for name, stepper in self.steppers.items():
            state |= prefixed(f"optimizer.{name}.", stepper.state_dict())
        if self.average is not None:
            state |= prefixed("average.", self.average.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.version = state["version"]
        go_on(self.agent.rng, state["rng"])
        self.threads.load_state_dict(under("threads.", state))
        self.agent.load_state_dict(under("agent.", state))
        for name, stepper in self.steppers.items():
            stepper.load_state_dict(under(f"optimizer.{name}.", state))
        if self.average is not None:
            self.average.load_state_dict(under("average.", state))

    def evaluated_state(self) -> dict[str, Tensor]:
        """The agent's ``state_dict`` as evaluations play it: with the averaged policy, if any."""
        state: dict[str, Tensor] = self.agent.state_dict()
        return state if self.average is None else {**state, **self.average.weights()}

    def as_evaluated(self) -> AbstractContextManager[None]:
        """Let the agent have the weights in here that evaluations play."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _step(self, batch: Batch, env_steps: int) -> Update:
        priority: Tensor | None = None
        metrics: dict[str, Tensor] = {}
        measured = self.version % MEASURE_EVERY == 0
        inputs = batch.tensors()
        for goal in self.objectives:
            if self.version % goal.every:
                continue
            found = self._differentiate(goal, batch, inputs, measured)
            # On an accelerator the run would have to wait for the number; see `checked`.
            if self._on_cpu and found.value is not None and not isfinite(found.value):
                raise self._not_finite(f"the loss of objective '{goal.name}'", found.value)
            trained = self.trained[goal.name]
            squares = [self._apply(goal, name, env_steps, measured) for name in trained]
            if found.priority is not None:
                priority = found.priority
            if found.beside:
                self.agent.update_beside(**found.beside)
            if measured:
                for name, square in zip(trained, squares):
                    known = self.groups[name].square() if square is None else square
                    metrics[f"grad_norm/{name}"] = known.sqrt()
                if found.value is not None:
                    metrics[f"loss/{goal.name}"] = found.value
                metrics |= found.metrics
        self.version += 1
        self.agent.after_update()
        if self.average is not None:
            self.average.update(self.version)
        return Update(priority, metrics)

    def _differentiate(
        self, goal: Objective, batch: Batch, inputs: list[Tensor], measured: bool
    ) -> _Found:
        """Set the gradients of an objective; what it found, with metrics if ``measured``."""
        groups = self._groups_of[goal.name]
        # The gradient needs no value of the loss, nor does the check where a limit looks at it.
        limits = [self.settings[name].max_grad_norm for name in self.trained[goal.name]]
        with_value = measured or (self._on_cpu and None in limits)

        def gradients(tensors: Sequence[Tensor]) -> _Found:
            private = batch.rebuilt(tensors)
            loss: Loss = self.compiling(goal.name, getattr(self.agent, goal.name))(private)
            _check_shapes(goal, self.agent, loss, private)
            value = loss.value if private.weight is None else loss.value * private.weight
            value = value.mean()
            if not value.requires_grad:
                raise CoachError(
                    f"Objective '{goal.name}' of {type(self.agent).__name__} returns a loss "
                    f"without gradient, so {' and '.join(goal.minimises)} cannot learn from it.",
                    "Compute it from their outputs, without detach() and torch.no_grad().",
                )
            parameters = [p for group in groups for p in group.parameters]
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            self._reach.look(goal, parameters, found, self.version)
            following = iter(found)
            for group in groups:
                group.set_gradients([next(following) for _ in group.parameters])
            keeps = self.compiling.keeps
            priority = loss.priority if self.priorities else None
            result = _Found(
                keeps(value.detach()) if with_value else None,
                None if priority is None else keeps(priority),
                {name: keeps(tensor) for name, tensor in loss.beside.items()},
            )
            if measured:
                with torch.no_grad():
                    metrics = loss.metrics().items()
                    result.metrics |= {name: metric.detach() for name, metric in metrics}
            return result

        name = f"{goal.name} of {batch.length}{' with metrics' if measured else ''}"
        return self.recorder(name, gradients, inputs, [group.gradient for group in groups])

    def _apply(self, goal: Objective, name: str, env_steps: int, measured: bool) -> Tensor | None:
        settings, group = self.settings[name], self.groups[name]
        lr, most = settings.lr(env_steps), settings.max_grad_norm
        try:
            if measured and most is None and self._on_cpu:
                group.require_finite()
            return self.apply(self.steppers[name], group, lr, most)
        except FloatingPointError as error:
            what = f"the gradient of '{name}' by objective '{goal.name}'"
            wrong = group.gradient[~group.gradient.isfinite()]
            raise self._not_finite(what, wrong[:1].sum()) from error

    def _not_finite(self, what: str, value: Tensor | float) -> NotFiniteError:
        return NotFiniteError(
            f"In update {self.version + 1}, {what} became {float(value)}.", TOO_FAST
        )


def _check_shapes(goal: Objective, agent: Agent, loss: Loss, batch: Batch) -> None:
    """Refuse a loss that is not one number per row, which would be weighted wrongly."""
    rows = batch.reward.shape
    for name, tensor in (("value", loss.value), ("priority", loss.priority)):
        if tensor is not None and tensor.shape != rows:
            raise CoachError(
                f"Objective '{goal.name}' of {type(agent).__name__} returns a Loss whose {name} "
                f"has shape {list(tensor.shape)}, but its batch has rows {list(rows)}.",
                "Return one number per row: average over other dimensions, and leave averaging "
                "over rows to the learner, which weights them.",
            )
