"""Long short-term memory."""

from __future__ import annotations

import torch
from coach.architectures.recurrent import Recurrent
from coach.core.batch import State
from coach.core.registry import register
from coach.core.schema import Count
from torch import Tensor, nn


@register("middleware", "lstm")
class LSTM(Recurrent):
    """Long short-term memory (doi:10.1162/neco.1997.9.8.1735).

    Its forget gate (doi:10.1162/089976600300015015) starts open.

    Args:
        hidden: width of the state and of what comes out.
    """

    def __init__(self, features: int, hidden: Count = 128) -> None:
        super().__init__(hidden)
        self.input = nn.Linear(features, 4 * hidden)
        self.memory = nn.Linear(hidden, 4 * hidden, bias=False)
        with torch.no_grad():
            self.input.bias[hidden : 2 * hidden] = 1.0

    def project(self, features: Tensor) -> Tensor:
        return self.input(features)  # type: ignore[no-any-return]

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        assert isinstance(state, dict)
        hidden, cell = state["hidden"], state["cell"]
        assert isinstance(hidden, Tensor)
        assert isinstance(cell, Tensor)
        gates = projected + self.memory(hidden)
        enter, forget, new, leave = gates.chunk(4, -1)  # [M, H] each
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
        return hidden, {"hidden": hidden, "cell": cell}

    def initial_state(self, num_envs: int) -> State:
        zeros = torch.zeros(num_envs, self.hidden, device=self.input.weight.device)
        return {"hidden": zeros, "cell": zeros.clone()}
