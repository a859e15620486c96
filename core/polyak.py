"""Polyak averaging of a policy's weights, for evaluation.

Policies of value-based agents change with every update, and the last one of a run may be a bad one
among good ones. The average over many updates is steadier (Polyak and Juditsky, 1992; Izmailov et
al., arXiv:1803.05407). Only evaluation uses it: what is acted with and learned stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from coach.core.agent import Agent
from torch import Tensor

_EVERY = 8  # updates between two steps of the average, which then costs next to nothing


class PolicyAverage:
    """The exponential average of the weights that a policy learns.

    It begins as the plain mean, so that the first weights do not count for more than others.

    Args:
        agent: whose policy is averaged, on the device where it learns.
        over: updates over which weights are averaged: the decay is ``1 - 1 / over``.
    """

    def __init__(self, agent: Agent, over: int) -> None:
        self.over, self.steps = over, 0
        mine = {id(p) for p in agent.policy.parameters() if p.requires_grad}
        named = agent.named_parameters(remove_duplicate=False)
        self._names = [(name, p) for name, p in named if id(p) in mine]
        unique = {id(p): p for _, p in self._names}
        self._parameters = [p.detach() for p in unique.values()]
        self._place = {key: place for place, key in enumerate(unique)}
        self._average = [p.clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights after so many ``updates``; does so in one of a few."""
        if updates % _EVERY == 0:
            self.steps += 1
            share = max(_EVERY / self.over, 1 / self.steps)
            torch._foreach_lerp_(self._average, self._parameters, min(1.0, share))

    def weights(self) -> dict[str, Tensor]:
        """The averages by the names that the agent's ``state_dict`` gives to the weights."""
        return {name: self._average[self._place[id(p)]] for name, p in self._names}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the agent have the averages in here."""
        kept = [p.clone() for p in self._parameters]
        try:
            torch._foreach_copy_(self._parameters, self._average)
            yield
        finally:
            torch._foreach_copy_(self._parameters, kept)

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of steps."""
        return {"steps": self.steps, **{f"weights.{k}": t for k, t in self.weights().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; a run that had no average begins with its weights."""
        self.steps = state.get("steps", 0)
        for name, p in self._names:
            source = state.get(f"weights.{name}", p.detach())
            self._average[self._place[id(p)]].copy_(source)
