"""Middleware that remembers: cells applied step by step, started anew behind boundaries."""

from __future__ import annotations

from abc import abstractmethod

import torch
from coach.architectures.middleware import Middleware
from coach.core.batch import State, map_tree
from coach.core.errors import CoachError
from torch import Tensor


class Recurrent(Middleware):
    """Unrolls a cell over time; subclasses are the cell.

    Args:
        hidden: width of the state and of what comes out.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = self.outputs = hidden

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """What a step needs of its features, for all steps at once."""

    @abstractmethod
    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: the state before to what comes out and the state after."""

    def forward(
        self, features: Tensor, state: State = None, boundary: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None:
            raise CoachError(
                "A recurrent network was called without its state.",
                "Agents call network(obs, state) while acting, and "
                "network(batch.obs, batch.state, batch.boundary) in objectives.",
            )
        columns = len(next(iter(_leaves(state))))
        projected = self.project(features)
        if len(features) == columns:
            return self.advance(projected, state)
        assert boundary is not None
        alive = (~boundary).to(features.dtype).view(-1, columns, 1)  # [L, M, 1]
        outputs, states = [], []
        for t, step in enumerate(projected.view(-1, columns, projected.shape[-1])):
            if t:
                state = map_tree(lambda s, keep=alive[t - 1]: s * keep, state)
            output, state = self.advance(step, state)
            outputs.append(output)
            states.append(state)
        return torch.cat(outputs), map_tree(lambda *s: torch.cat(s), *states)


def _leaves(state: State) -> list[Tensor]:
    if isinstance(state, dict):
        return [leaf for inner in state.values() for leaf in _leaves(inner)]
    return [] if state is None else [state]
