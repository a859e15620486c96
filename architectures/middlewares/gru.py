"""Gated recurrent unit."""

from __future__ import annotations

import torch
from coach.architectures.recurrent import Recurrent
from coach.core.batch import State
from coach.core.registry import register
from coach.core.schema import Count
from torch import Tensor, nn


@register("middleware", "gru")
class GRU(Recurrent):
    """A gated recurrent unit (arXiv:1406.1078, in the form of arXiv:1412.3555).

    Args:
        hidden: width of the state and of what comes out.
    """

    def __init__(self, features: int, hidden: Count = 128) -> None:
        super().__init__(hidden)
        self.input = nn.Linear(features, 3 * hidden)
        self.memory = nn.Linear(hidden, 3 * hidden)

    def project(self, features: Tensor) -> Tensor:
        return self.input(features)  # type: ignore[no-any-return]

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        assert isinstance(state, Tensor)
        reset_in, update_in, new_in = projected.chunk(3, -1)  # [M, H] each
        reset_mem, update_mem, new_mem = self.memory(state).chunk(3, -1)
        reset = torch.sigmoid(reset_in + reset_mem)
        update = torch.sigmoid(update_in + update_mem)
        candidate = torch.tanh(new_in + reset * new_mem)
        if candidate.dtype != state.dtype:  # autocast; the state keeps its own type
            candidate, update = candidate.to(state.dtype), update.to(state.dtype)
        after = torch.lerp(candidate, state, update)
        return after, after

    def initial_state(self, num_envs: int) -> State:
        return torch.zeros(num_envs, self.hidden, device=self.input.weight.device)
