"""What every stored transition was followed by, to the end of its episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.batch import map_tree
from coach.memories.observations import both
from coach.memories.stripes import BOUNDARY, REWARD, TERMINATED, Stripes
from numpy.typing import NDArray
from torch import Tensor


class EpisodeReturns:
    """Returns of the episodes in a ring, added up once, when an episode has ended.

    They follow from what is stored, so nothing of them has to be saved: a run that goes on adds
    them up again.

    Args:
        stripes: the ring.
        discount: gamma, per environment step.
    """

    def __init__(self, stripes: Stripes, discount: float) -> None:
        self.stripes, self.discount = stripes, discount
        self._value = np.full(stripes.size, np.nan, np.float32)  # nan: the episode goes on
        self._rest = np.zeros(stripes.size, np.float32)  # what the value of the end counts for
        self._last = np.zeros(stripes.size, np.int64)  # the episode's last row
        self._summed = np.zeros(stripes.num_envs, np.int64)  # rows written up to which it is done
        self._seen = np.zeros(stripes.num_envs, np.int64)  # rows written that have been looked at

    def of(self, index: Tensor) -> dict[str, Any]:
        """For rows ``[B]`` the sum of rewards from there on, and where it goes on from.

        Under ``return``; what lies behind counts for ``return_discount``, 0 behind a terminal
        state, and is seen from ``return_obs``. Of an episode that goes on still, it is the next
        step's: the reward, and the next observation.
        """
        self._refresh()
        stripes, at = self.stripes, index.numpy()
        value, rest, last = self._value[at], self._rest[at], self._last[at]
        outcome = stripes.outcome.numpy()
        going_on = np.isnan(value)
        value[going_on] = outcome[at[going_on], REWARD]
        rest[going_on] = self.discount
        last[going_on] = at[going_on]
        ended = (~going_on).nonzero()[0]
        behind = last + 1
        behind -= stripes.rows * (behind % stripes.rows == 0)
        _, obs = both(stripes.ring, last, behind, ended, stripes.finals.of(last[ended]))
        return {
            "return": torch.from_numpy(value),
            "return_discount": torch.from_numpy(rest),
            "return_obs": map_tree(torch.from_numpy, obs),
        }

    def _refresh(self) -> None:
        stripes = self.stripes
        for env in range(stripes.num_envs):
            written = int(stripes.written[env])
            if written == self._seen[env]:
                continue
            oldest = written - int(stripes.counts[env])
            # An episode that was given up had its end marked later, on the newest row of then.
            begin = max(int(self._seen[env]) - 1, int(self._summed[env]), oldest)
            fresh = self._rows(env, begin, written)
            self._value[fresh] = np.nan
            ends = stripes.outcome.numpy()[fresh, BOUNDARY].nonzero()[0]
            self._seen[env] = written
            if len(ends):
                end = written - len(fresh) + int(ends[-1]) + 1
                self._add_up(self._rows(env, max(int(self._summed[env]), oldest), end))
                self._summed[env] = end

    def _rows(self, env: int, begin: int, end: int) -> NDArray[np.int64]:
        rows = self.stripes.rows
        return env * rows + np.arange(begin, end) % rows

    def _add_up(self, rows: NDArray[np.int64]) -> None:
        """Returns of ``rows``, which follow each other and end with an episode's end."""
        outcome = self.stripes.outcome.numpy()[rows]
        value, rest, last = 0.0, 0.0, 0
        found: list[tuple[float, float, int]] = []
        # Python's own numbers: one at a time they are faster than anything vectorised.
        for row, step in zip(reversed(rows.tolist()), reversed(outcome.tolist())):
            if step[BOUNDARY]:
                value, rest, last = 0.0, 0.0 if step[TERMINATED] else 1.0, row
            value = step[REWARD] + self.discount * value
            rest *= self.discount
            found.append((value, rest, last))
        values, rests, lasts = zip(*reversed(found))
        self._value[rows], self._rest[rows], self._last[rows] = values, rests, lasts
