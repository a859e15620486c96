"""Every class of transitions equally often, however rare it is."""

from __future__ import annotations

import numpy as np
import torch
from coach.core.errors import SettingError
from coach.core.registry import register
from coach.core.spec import Spec
from coach.memories.observations import take
from coach.memories.sampler import Sampler
from coach.memories.stripes import Stripes
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor


@register("sampler", "balanced")
class Balanced(Sampler):
    """Draws the same number of rows from each class that is there, uniformly within it.

    What is common cannot crowd out what is rare, such as turns among drives straight ahead
    (arXiv:1710.02410, section IV-C). There are no importance weights: balance is what is wanted.

    Args:
        key: what tells the class: ``action``, or a Discrete entry of a Dict observation (nested
            with dots).
    """

    learns = False
    reads_steps = True

    def __init__(self, key: str = "action") -> None:
        self.key = key

    def attach(self, stripes: Stripes) -> int:
        _classes(stripes.spec, self.key)
        self.size, self.stripes = stripes.size, stripes
        self._rows: list[NDArray[np.int64]] = []  # of each class that is there
        self._stale = True
        return 9 * stripes.size

    def added(self, index: Tensor, dropped: Tensor, priority: Tensor | None = None) -> None:
        self._stale = True

    def draw(
        self, stripes: Stripes, count: int, step: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        if self._stale:
            self._sort()
        classes = len(self._rows)
        drawn = torch.rand(count, generator=rng, dtype=torch.float64).numpy()
        index = np.empty(count, np.int64)
        # Where the batch does not divide, the classes take turns in getting one more.
        first = int(torch.randint(classes, (), generator=rng))
        turn = (np.arange(count) + first) % classes
        for number, rows in enumerate(self._rows):
            mine = turn == number
            index[mine] = rows[(drawn[mine] * len(rows)).astype(np.int64)]
        return torch.from_numpy(index), None

    def monitor(self, step: int) -> dict[str, float]:
        return {"classes": float(len(self._rows))}

    def _sort(self) -> None:
        """Find the rows of each class; the memory itself is what is remembered."""
        stripes = self.stripes
        held = np.concatenate(
            [
                env * stripes.rows + (np.arange(written - count, written) % stripes.rows)
                for env, (written, count) in enumerate(zip(stripes.written, stripes.counts))
            ]
        )
        if self.key == "action":
            told = stripes.action.numpy()[held]
        else:
            leaf = stripes.ring
            for part in self.key.split("."):
                leaf = leaf[part]
            told = take(leaf, held)
        order = np.argsort(told, kind="stable")
        ends = np.flatnonzero(np.diff(told[order])) + 1
        self._rows = np.split(held[order], ends)
        self._stale = False


def _classes(spec: Spec, key: str) -> int:
    """How many classes there can be.

    Raises:
        SettingError: nothing Discrete has that name.
    """
    space = spec.action if key == "action" else spec.observation
    for part in key.split(".") if key != "action" else ():
        space = space.spaces.get(part) if isinstance(space, spaces.Dict) else None  # type: ignore[assignment]
    if not isinstance(space, spaces.Discrete):
        raise SettingError(
            "memory.sampler.key",
            f"'{key}' is {space if space is not None else 'not in the observation'}, but classes "
            "are told by a Discrete value",
            "Name a Discrete entry of the observation, or action.",
        )
    return int(space.n)
