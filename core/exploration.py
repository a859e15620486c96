"""The exploration contract: from what a network says to what is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from coach.core.batch import State
from coach.core.context import Context
from coach.core.errors import SettingError
from torch import Tensor


class Exploration(ABC):
    """Chooses actions from a head's output.

    ``consumes`` lists the kinds of output (`Head.provides`) it can read: "values" (``[B, A]``),
    "distribution" or "action" (``[B, D]``). It keeps no counters: schedules read ``ctx.step``, and
    what has to be remembered of an actor is a tensor in ``ctx.notes``.
    While evaluating (``ctx.explore`` is False) it acts greedily unless its settings say otherwise.
    """

    kind: ClassVar[str] = "exploration"
    injected = frozenset({"spec"})
    consumes: ClassVar[tuple[str, ...]]
    #: Whether it changes what the network says; agents then have to run it through `outputs`.
    disturbs: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, output: Any, ctx: Context) -> Tensor:
        """The action of each row."""

    def monitor(self, step: int) -> dict[str, float]:
        """Scalars worth logging at ``step``, such as epsilon."""
        return {}

    def outputs(self, network: Any, obs: Any, state: State, ctx: Context) -> Any:
        """What a network says of observations ``[N, ...]``, for acting."""
        return network(obs, state)

    def require(self, owner: str, *provides: str, disturb: bool = False) -> Exploration:
        """Check that it can read what ``owner`` provides; returns the exploration.

        Args:
            owner: for the error.
            provides: kinds of output that what it will be given can be used as.
            disturb: whether the owner runs its network through `outputs`.

        Raises:
            SettingError: it cannot read any of them.
        """
        if not set(provides) & set(self.accepts()):
            raise SettingError(
                "agent.exploration",
                f"'{getattr(self, 'registered_name', type(self).__name__)}' reads "
                f"{' or '.join(self.accepts())}, but {owner} provides {provides[0]}",
                "`coach list explorations` shows what each reads.",
            )
        if self.disturbs and not disturb:
            raise SettingError(
                "agent.exploration",
                f"'{getattr(self, 'registered_name', type(self).__name__)}' disturbs the network, "
                f"which {owner} does not let it do",
                "Choose another one, or agent dqn or n_step_q.",
            )
        return self

    def accepts(self) -> tuple[str, ...]:
        """What it can read; differs from ``consumes`` where it hands over to another one."""
        return self.consumes
