"""Prioritized experience replay, proportional variant."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.registry import register
from coach.core.schema import Fraction, Positive
from coach.functional.priorities import importance_weights, priority_mass
from coach.functional.schedules import Schedule, as_schedule
from coach.memories import sum_tree
from coach.memories.sampler import Sampler
from coach.memories.stripes import Stripes
from coach.memories.sum_tree import SumTree
from torch import Tensor


@register("sampler", "prioritized")
class Prioritized(Sampler):
    """Draws in proportion to ``(|TD error| + epsilon) ** alpha`` (arXiv:1511.05952).

    Stratified over the batch; new transitions enter with the largest priority seen so far, or with
    the error that the values noted while acting amount to, where the agent notes them.

    Args:
        alpha: 0 is uniform, 1 fully in proportion.
        beta: correction of the bias by importance weights, 1 is full; a number or a schedule.
        epsilon: keeps transitions without error drawable.
    """

    def __init__(
        self, alpha: Fraction = 0.6, beta: Schedule | float = 0.4, epsilon: Positive = 1e-6
    ) -> None:
        self.alpha, self.beta, self.epsilon = alpha, as_schedule(beta, "beta", 0, 1), epsilon
        self.largest = 1.0

    def attach(self, stripes: Stripes) -> int:
        self.size = stripes.size
        if sum_tree.compiled is not None:  # Numba is there, and loaded
            stripes.look_up = sum_tree.compiled.look_up
        return SumTree.bytes_for(stripes.size)

    def added(self, index: Tensor, dropped: Tensor, priority: Tensor | None = None) -> None:
        sizes = np.full(len(index), self.largest)
        if priority is not None:
            known = priority.double().numpy()
            self.largest = max(self.largest, float(known.max(initial=0.0)))
            sizes = np.where(known >= 0, known, self.largest)
        self.tree[index.numpy()] = priority_mass(sizes, self.alpha, self.epsilon)
        self.tree[dropped.numpy()] = 0.0

    def draw(
        self, stripes: Stripes, count: int, step: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        uniform = torch.rand(count, generator=rng, dtype=torch.float64).numpy()
        index, mass, total = self.tree.stratified(uniform)
        weight = importance_weights(mass / total, len(stripes), self.beta(step))
        return torch.from_numpy(index), torch.from_numpy(weight.astype(np.float32))

    def feedback(self, index: Tensor, priority: Tensor) -> None:
        sizes = priority.double().numpy()
        self.largest = max(self.largest, float(sizes.max()))
        self.tree[index.numpy()] = priority_mass(sizes, self.alpha, self.epsilon)

    def monitor(self, step: int) -> dict[str, float]:
        return {"beta": self.beta(step), "largest_priority": self.largest}

    def state_dict(self) -> dict[str, Any]:
        return {"mass": torch.from_numpy(self.tree.levels[0]), "largest": self.largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tree.load(state["mass"].numpy()[: self.size])
        self.largest = state["largest"]

    @property
    def tree(self) -> SumTree:
        """The masses; allocated when first used."""
        if not hasattr(self, "_tree"):
            self._tree = SumTree(self.size)
        return self._tree
