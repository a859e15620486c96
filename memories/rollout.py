"""Rollouts of the current policy: collected, learned from for a few epochs, dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from coach.core.batch import Batch, leaves, map_tree
from coach.core.errors import SettingError
from coach.core.layout import transition_bytes
from coach.core.memory import Memory, Prepare
from coach.core.registry import register
from coach.core.schema import Count, Fraction
from coach.core.spec import Spec


@register("memory", "rollout")
class Rollout(Memory):
    """Holds ``horizon`` steps of every environment, then owes ``epochs`` passes over them.

    Advantages are the agent's business (`Agent.prepare`); the memory applies the discount and
    shuffles.

    Args:
        horizon: steps per environment and rollout.
        epochs: passes over each rollout.
        batch_size: transitions per minibatch; left out, the whole rollout is one.
        discount: gamma, per environment step.
    """

    order = "rollout"

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        seed: int = 0,
        horizon: Count = 128,
        epochs: Count = 4,
        batch_size: Count | None = None,
        discount: Fraction = 0.99,
    ) -> None:
        self.horizon = self.fragment_length = horizon
        self.epochs, self.batch_size, self.discount = epochs, batch_size, discount
        self.nbytes = 2 * horizon * num_envs * transition_bytes(spec)
        self.rng = torch.Generator().manual_seed(seed)
        self._parts: list[Batch] = []

    def check_fragments(self, length: int) -> None:
        if self.horizon % length:
            raise self._misfit(length)

    def write(self, fragment: Batch) -> None:
        if sum(len(part) for part in self._parts) + len(fragment) > self.horizon:
            raise self._misfit(len(fragment))
        self._parts.append(fragment.map(torch.clone))

    def batches(self, prepare: Prepare) -> Iterator[Batch]:
        if sum(len(part) for part in self._parts) < self.horizon:
            return
        whole = _join(self._parts)
        self._parts = []
        whole = prepare(replace(whole, discount=whole.discount * self.discount)).flatten()
        total = whole.steps
        size = self.batch_size or total
        for _ in range(self.epochs):
            if size >= total:
                yield whole
                continue
            order = torch.randperm(total, generator=self.rng)
            for index in torch.split(order, size):
                yield whole[index]

    def monitor(self) -> dict[str, float]:
        return {"fill": sum(len(part) for part in self._parts) / self.horizon}

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"rng": self.rng.get_state(), "parts": bool(self._parts)}
        if self._parts:
            for name, leaf in leaves(_tree(_join(self._parts))):
                state[f"part.{name}"] = leaf
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["rng"])
        self._parts = []
        if state["parts"]:
            tree: dict[str, Any] = {}
            for name, leaf in state.items():
                if name.startswith("part."):
                    *path, last = name.split(".")[1:]
                    node = tree
                    for key in path:
                        node = node.setdefault(key, {})
                    node[last] = leaf
            self._parts = [Batch(**tree)]

    def _misfit(self, length: int) -> SettingError:
        return SettingError(
            "run.fragment_length",
            f"rollouts of {self.horizon} steps cannot be put together from fragments of {length}",
            "Leave it out, or let it divide memory.horizon.",
        )


def _tree(batch: Batch) -> dict[str, Any]:
    return {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "version"}


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    trees = [_tree(part) for part in parts]
    joined = {
        name: map_tree(lambda *tensors: torch.cat(tensors), *(tree[name] for tree in trees))
        for name in trees[0]
        if name != "env_ids"
    }
    return Batch(**joined, env_ids=parts[0].env_ids, version=parts[0].version)
