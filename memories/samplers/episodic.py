"""Finished episodes only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.registry import register
from coach.memories.sampler import Sampler
from coach.memories.stripes import BOUNDARY, Stripes
from torch import Tensor


@register("sampler", "episodic")
class Episodic(Sampler):
    """Draws uniformly from the transitions of episodes that have ended.

    What belongs to an episode that still goes on waits for its end, and so do the first updates if
    none has ended. Returns to the end of an episode (mixed Monte Carlo and the like) are then what
    followed, without a share of later guesses.
    """

    learns = False
    reads_steps = True

    def attach(self, stripes: Stripes) -> int:
        self.stripes = stripes
        #: Rows ever written up to the last end of an episode, per stripe.
        self.ended = np.zeros(stripes.num_envs, np.int64)
        return 0

    def added(self, index: Tensor, dropped: Tensor, priority: Tensor | None = None) -> None:
        stripes, rows = self.stripes, self.stripes.rows
        written = index.numpy()
        # The row before may have become the last of its episode when it was given up.
        before = written - 1 + rows * (written % rows == 0)
        at = np.concatenate([written, before])
        at = at[stripes.outcome.numpy()[at, BOUNDARY] > 0]
        stripe, row = np.divmod(at, rows)
        newest = stripes.written[stripe]
        np.maximum.at(self.ended, stripe, newest - (newest - 1 - row) % rows)

    def ready(self, stripes: Stripes) -> bool:
        return bool((self._held(stripes) > 0).any())

    def draw(
        self, stripes: Stripes, count: int, step: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        held = self._held(stripes)
        ends = held.cumsum()
        drawn = torch.randint(int(ends[-1]), (count,), generator=rng).numpy()
        stripe = np.searchsorted(ends, drawn, side="right")
        oldest = stripes.written - stripes.counts
        position = drawn - (ends - held)[stripe] + oldest[stripe]
        return torch.from_numpy(stripe * stripes.rows + position % stripes.rows), None

    def monitor(self, step: int) -> dict[str, float]:
        waiting = self.stripes.written - self.ended
        return {"waiting": float(np.minimum(waiting, self.stripes.counts).sum())}

    def state_dict(self) -> dict[str, Any]:
        return {"ended": torch.from_numpy(self.ended.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ended[:] = state["ended"].numpy()

    def _held(self, stripes: Stripes) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Transitions of episodes that have ended, per stripe."""
        return np.maximum(self.ended - (stripes.written - stripes.counts), 0)
