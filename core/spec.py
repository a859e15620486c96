"""What an environment offers an agent: its observation and its action space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from coach.core.errors import SettingError
from gymnasium import spaces

#: A Gymnasium space of whatever values.
AnySpace: TypeAlias = spaces.Space[Any]


@dataclass(frozen=True)
class Spec:
    """Spaces of one (not vectorised) environment.

    Args:
        observation: Box, Discrete, MultiDiscrete, MultiBinary, or a (nested) Dict of these.
        action: Box, Discrete, MultiDiscrete or MultiBinary.
    """

    observation: AnySpace
    action: AnySpace

    def require_action(self, owner: str, *kinds: type[AnySpace]) -> None:
        """Stop unless the action space is one of ``kinds``.

        Raises:
            SettingError: names what ``owner`` serves and what the environment has.
        """
        if not isinstance(self.action, kinds):
            served = " or ".join(kind.__name__ for kind in kinds)
            raise SettingError(
                "agent",
                f"{owner} serves {served} actions, but the environment has {self.action}",
                "Choose another agent (`coach list agents`): dqn serves Discrete, sac serves Box, "
                "ppo serves Discrete, MultiDiscrete, MultiBinary and Box.",
            )

    def num_actions(self, owner: str) -> int:
        """Number of discrete actions; stops unless the action space is Discrete."""
        self.require_action(owner, spaces.Discrete)
        assert isinstance(self.action, spaces.Discrete)
        return int(self.action.n)

    def bounds(self, owner: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Flat lower and upper bounds of the action; stops unless it is a bounded Box."""
        self.require_action(owner, spaces.Box)
        assert isinstance(self.action, spaces.Box)
        if not self.action.is_bounded():
            raise SettingError(
                "environment",
                f"{owner} needs bounded actions, but the environment has {self.action}",
                "Bound them with Gymnasium's RescaleAction or ClipAction wrapper in "
                "environment.wrappers, or use ppo.",
            )
        low, high = self.action.low.reshape(-1), self.action.high.reshape(-1)
        return torch.as_tensor(low, dtype=torch.float32), torch.as_tensor(high, dtype=torch.float32)
