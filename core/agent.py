"""The agent contract: how to act, and what to minimise. Nothing else.

An agent never sees an environment, a memory, a clock, a process, an optimiser or a logger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.spec import Spec
from torch import Tensor, nn

F = TypeVar("F", bound=Callable[..., "Loss"])


@dataclass
class Action:
    """What `Agent.act` returns.

    Args:
        action: ``[N, ...]`` as the agent's distribution produced it.
        state: recurrent state after this step; ``None`` for feed-forward agents.
        extras: ``[N, ...]`` tensors to be stored with the transition.
    """

    action: Tensor
    state: State = None
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Loss:
    """What an objective returns.

    Args:
        value: ``[B]`` loss per row; the learner takes the importance-weighted mean.
        priority: ``[B]`` new priorities for the memory (detached), if the objective sets them.
        metrics: gives scalars to log, as tensors; called without autograd, for some updates only.
        beside: tensors for `Agent.update_beside`, which comes after the step.
    """

    value: Tensor
    priority: Tensor | None = None
    metrics: Callable[[], Mapping[str, Tensor]] = dict
    beside: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """A method of an agent that the learner minimises.

    Args:
        name: the method's name.
        minimises: attributes of the agent (modules or parameters) that its gradient may move.
        every: how many updates pass between two steps of this objective.
    """

    name: str
    minimises: tuple[str, ...]
    every: int = 1


def objective(minimises: str | tuple[str, ...], every: int = 1) -> Callable[[F], F]:
    """Mark a method ``(batch) -> Loss`` as an objective.

    Args:
        minimises: name(s) of the agent's modules or parameters that it trains; gradients are
            computed for these only.
        every: take the step in one of so many updates (TD3's delayed actor: 2).
    """
    names = (minimises,) if isinstance(minimises, str) else tuple(minimises)

    def mark(method: F) -> F:
        method.objective = Objective(method.__name__, names, every)  # type: ignore[attr-defined]
        return method

    return mark


class Agent(nn.Module):
    """Decides how to act and what to minimise; see docs/own-agent.md.

    Subclasses set ``policy``, implement ``act`` and mark one or more methods with `objective`.
    """

    kind: ClassVar[str] = "agent"
    injected = frozenset({"spec"})
    #: Updates that acting may lag behind the learner; ``None`` is no limit, 0 is on-policy only.
    max_policy_lag: int | None = None
    #: Whether the objectives want returns to the episode's end beside the memory's own. Batches
    #: then have them in ``extras["return"]``.
    episode_returns: bool = False
    #: Whether the objectives read the rewards of a batch; if not, a memory need not sum any.
    reads_rewards: bool = True
    #: Numbers ``[T, N]`` among a fragment's extras that a replay memory keeps with every step.
    kept_extras: tuple[str, ...] = ()
    #: Steps ahead at which the objectives want to see an entry of the observation, if any.
    future_offsets: tuple[int, ...] = ()
    #: The key of that entry in a Dict observation, which the agent then cannot do without.
    future_key: ClassVar[str] = ""
    #: Whether the objectives carry a recurrent state along the steps of a sequence.
    unrolls: ClassVar[bool] = False
    #: Kinds of memory (`Memory.order`) that the objectives can learn from.
    learns_from: ClassVar[tuple[str, ...]] = ("replay",)

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        #: Random stream of the objectives; the learner seeds and checkpoints it.
        self.rng = torch.Generator()
        self._refreshing: dict[bool, list[Callable[[Batch], None]]] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in vars(self).get("_modules", ()):  # torch's own way to a part takes microseconds
            vars(self)[name] = value

    def __delattr__(self, name: str) -> None:
        if name in self._modules:
            vars(self).pop(name, None)
        super().__delattr__(name)

    @property
    def policy(self) -> nn.Module:
        """The module that acting reads, and all that is broadcast to actors."""
        raise TypeError(f"{type(self).__name__} must define the property `policy`")

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        """Choose actions for ``N`` environments; called without autograd."""
        raise TypeError(f"{type(self).__name__} must define `act`")

    def initial_state(self, num_envs: int) -> State:
        """Recurrent state at the start of an episode, with leading dimension ``num_envs``."""
        initial = getattr(self.policy, "initial_state", None)
        return initial(num_envs) if initial is not None else None

    #: Whether objectives need whole columns of steps even without a recurrent policy.
    sequences: ClassVar[bool] = False

    @property
    def prepares(self) -> bool:
        """Whether `prepare` changes anything."""
        if type(self).prepare is not Agent.prepare:
            return True
        return getattr(self.policy, "reward_scale", None) is not None

    def prepare(self, batch: Batch) -> Batch:
        """Turn what the memory holds into what the objectives read (advantages and the like).

        The default scales rewards where the policy network keeps reward statistics. Those of a
        rollout are single ones, which are clipped; a replay memory may have summed several.
        """
        scale = getattr(self.policy, "reward_scale", None)
        if scale is None:
            return batch
        if self.learns_from == ("rollout",):
            return replace(batch, reward=scale(batch.reward))
        extras = batch.extras
        if self.episode_returns:
            extras = extras | {"return": scale.of_sums(extras["return"])}
        return replace(batch, reward=scale.of_sums(batch.reward), extras=extras)

    def receive(self, fragment: Batch) -> Batch:
        """See a fragment once, before the memory does; returns what the memory is to be given.

        Statistics of rewards are refreshed here, so that the scale of a rollout knows it.
        """
        self._refresh(fragment, before_updates=True)
        return fragment

    def observe(self, fragment: Batch) -> None:
        """See a fragment once, after its updates: statistics of observations are refreshed here.

        So a rollout is learned from under the statistics that its actions were drawn with.
        """
        self._refresh(fragment, before_updates=False)

    def _refresh(self, fragment: Batch, before_updates: bool) -> None:
        if self._refreshing is None:  # looked for once: there are many modules, and few of these
            self._refreshing = {True: [], False: []}
            for module in self.modules():
                refresh = getattr(module, "refresh", None)
                if refresh is not None:
                    first = getattr(module, "before_updates", False)
                    self._refreshing[first].append(refresh)
        if self._refreshing[before_updates]:
            fragment = fragment.to(self.rng.device)  # once for all of them
            with torch.no_grad():
                for refresh in self._refreshing[before_updates]:
                    refresh(fragment)

    def after_update(self) -> None:
        """Called after each update; target networks are tracked here."""

    def update_beside(self, **found: Tensor) -> None:
        """Change what no optimiser does, such as a dictionary's entries, after a step.

        Called with what an objective returned as `Loss.beside`, if anything: objectives themselves
        must leave everything as it is.
        """
        raise TypeError(f"{type(self).__name__} must define `update_beside` for {sorted(found)}")

    def monitor(self, step: int) -> dict[str, float]:
        """Scalars that depend on the step alone, such as the exploration rate."""
        exploration = getattr(self, "exploration", None)
        return exploration.monitor(step) if exploration is not None else {}

    @classmethod
    def objectives(cls) -> list[Objective]:
        """The marked methods, base classes first, in the order they are written."""
        found: dict[str, Objective] = {}
        for base in reversed(cls.__mro__):
            for name, member in vars(base).items():
                if hasattr(member, "objective"):
                    found[name] = member.objective
        return list(found.values())
