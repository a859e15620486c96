"""Prioritized experience replay, rank-based variant."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.registry import register
from coach.core.schema import Count, Fraction
from coach.functional.priorities import importance_weights
from coach.functional.schedules import Schedule, as_schedule
from coach.memories.sampler import Sampler
from coach.memories.stripes import Stripes
from numpy.typing import NDArray
from torch import Tensor


@register("sampler", "rank")
class Rank(Sampler):
    """Draws with probability in proportion to ``1 / rank ** alpha`` (arXiv:1511.05952, sec. 3.3).

    The rank is that of the TD error among all stored ones, so outliers cannot take over. As
    published the order is found anew now and then only; transitions that came since stand in front
    of it. Stratified over the batch.

    Args:
        alpha: 0 is uniform, 1 is Zipf's law.
        beta: correction of the bias by importance weights, 1 is full; a number or a schedule.
        sort_every: draws between two sortings.
    """

    def __init__(
        self, alpha: Fraction = 0.7, beta: Schedule | float = 0.5, sort_every: Count = 100
    ) -> None:
        self.alpha, self.beta, self.sort_every = alpha, as_schedule(beta, "beta", 0, 1), sort_every
        self.draws = 0
        self._order = np.zeros(0, np.int64)  # rows by falling error when they were last sorted
        self._fresh: list[NDArray[np.int64]] = []  # rows written since, in the order they came
        self._cumulative = np.zeros(0)  # of the ranks' probabilities

    def attach(self, stripes: Stripes) -> int:
        self.size = stripes.size
        return stripes.size * (8 + 8 + 8)

    @property
    def error(self) -> NDArray[np.float64]:
        """``[size]`` error of every row; below 0 where there is no transition."""
        if not hasattr(self, "_error"):
            self._error = np.full(self.size, -1.0)
        return self._error

    def added(self, index: Tensor, dropped: Tensor, priority: Tensor | None = None) -> None:
        error, rows = self.error, index.numpy()
        error[rows] = np.inf
        if priority is not None:
            known = priority.double().numpy()
            error[rows] = np.where(known >= 0, known, np.inf)
        error[dropped.numpy()] = -1.0
        self._fresh.append(rows.copy())

    def draw(
        self, stripes: Stripes, count: int, step: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        if self.draws % self.sort_every == 0:
            self._sort()
        self.draws += 1
        order = np.concatenate([*reversed(self._fresh), self._order])
        cumulative = self._up_to(len(order))
        place = (np.arange(count) + _uniform(count, rng)) / count
        rank = cumulative.searchsorted(place * cumulative[-1], side="right")
        rank = rank.clip(max=len(order) - 1)
        while (gone := self.error[order[rank]] < 0).any():  # dropped since the sorting
            again = _uniform(int(gone.sum()), rng) * cumulative[-1]
            rank[gone] = cumulative.searchsorted(again, side="right").clip(max=len(order) - 1)
        probability = (rank + 1.0) ** -self.alpha / cumulative[-1]
        weight = importance_weights(probability, len(stripes), self.beta(step))
        return torch.from_numpy(order[rank]), torch.from_numpy(weight.astype(np.float32))

    def feedback(self, index: Tensor, priority: Tensor) -> None:
        self.error[index.numpy()] = priority.double().numpy()

    def monitor(self, step: int) -> dict[str, float]:
        return {"beta": self.beta(step)}

    def state_dict(self) -> dict[str, Any]:
        fresh = np.concatenate([*reversed(self._fresh), np.zeros(0, np.int64)])
        return {
            "error": torch.from_numpy(self.error),
            "order": torch.from_numpy(self._order),
            "fresh": torch.from_numpy(fresh),
            "draws": self.draws,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.error[:] = state["error"].numpy()[: self.size]
        self._order = state["order"].numpy().copy()
        self._fresh = [state["fresh"].numpy().copy()]
        self.draws = state["draws"]

    def _sort(self) -> None:
        held = np.flatnonzero(self.error >= 0)
        self._order = held[np.argsort(-self.error[held], kind="stable")]
        self._fresh = []

    def _up_to(self, count: int) -> NDArray[np.float64]:
        """Running sums of ``1 / rank ** alpha`` for so many ranks."""
        if len(self._cumulative) < count:
            ranks = np.arange(1, 2 * count + 1)
            self._cumulative = (ranks**-self.alpha).cumsum()
        return self._cumulative[:count]


def _uniform(count: int, rng: torch.Generator) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = torch.rand(count, generator=rng, dtype=torch.float64).numpy()
    return drawn
