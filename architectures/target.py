"""Slowly moving copies of networks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from coach.core.errors import SettingError
from torch import Tensor, nn


class Target(nn.Module):
    """A copy of a network that follows it, by copying now and then or by averaging.

    Args:
        online: the network to follow.
        every: updates between two steps of the copy.
        tau: share of the online weights taken at each step; 1 copies.
    """

    def __init__(self, online: nn.Module, every: int = 1, tau: float = 1.0) -> None:
        super().__init__()
        if every < 1 or not 0 < tau <= 1:
            raise SettingError(
                "agent", f"a target needs every >= 1 and 0 < tau <= 1, got {every} and {tau}"
            )
        self.network = copy.deepcopy(online).requires_grad_(False)
        self.every, self.tau, self.updates = every, tau, 0
        self._has_buffers = any(True for _ in online.buffers())
        self._pair: Any = None

    def forward(self, *args: Any) -> Any:
        return self.network(*args)

    def track(self, online: nn.Module) -> None:
        """Count one update of ``online``; move towards it when it is time.

        Buffers, such as running statistics, are always copied.
        """
        mine = vars(self)  # a module's own way to set a number takes microseconds
        mine["updates"] = updates = mine["updates"] + 1
        due = updates % mine["every"] == 0
        if due or mine["_has_buffers"]:
            self._move(online, due)

    @torch.no_grad()
    def _move(self, online: nn.Module, due: bool) -> None:
        if self._has_buffers:
            self._copy_buffers(online)
        if not due:
            return
        if self._pair is None or self._pair[0] is not online:  # finding them takes a while
            both = list(self.network.parameters()), list(online.parameters())
            vars(self)["_pair"] = (online, *both)  # as it is, not as a part of this module
        _, mine, theirs = self._pair
        if self.tau == 1.0:
            torch._foreach_copy_(mine, theirs)
        else:
            torch._foreach_lerp_(mine, theirs, self.tau)

    def _copy_buffers(self, online: nn.Module) -> None:
        for buffer, source in zip(self.network.buffers(), online.buffers()):
            if buffer.shape != source.shape:
                buffer.resize_(source.shape)
            buffer.copy_(source)

    def get_extra_state(self) -> Tensor:
        """The update count, saved with the weights."""
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the update count."""
        self.updates = int(state)
