"""Ends of episodes that were given up: nothing flows from what was stored to what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from coach.core.batch import leaves, map_tree, rebuild
from coach.core.layout import named_leaves, observation_layout
from coach.memories.observations import take
from torch import Tensor

if TYPE_CHECKING:
    from coach.memories.stripes import Stripes

BOUNDARY = 2


class Seams:
    """Rows that were the newest of their stripe when the episode they belong to was given up.

    Such a row is made a boundary, cut off and not terminal, with the observation it led to as its
    final one. That happens after it may have gone to disk, so seams are saved with the state and
    made again once the rows are back.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []  # (stripe, position since the beginning)

    def cut(self, stripes: Stripes, envs: range) -> None:
        """End the episodes of some stripes at their newest rows."""
        ends = [(env, int(stripes.written[env]) - 1) for env in envs if stripes.written[env]]
        index = _index(stripes, ends)
        fresh = ~(
            stripes.outcome[index, BOUNDARY] > 0
        ).numpy()  # the others had ended by themselves
        ends = [end for end, is_fresh in zip(ends, fresh) if is_fresh]
        if ends:
            behind = _index(stripes, [(env, position + 1) for env, position in ends])
            self._make(stripes, ends, take(stripes.ring, behind.numpy()))

    def state_dict(self, stripes: Stripes) -> dict[str, Any]:
        """The seams still held, and their final observations."""
        oldest = stripes.written - stripes.counts
        self.rows = [(env, position) for env, position in self.rows if position >= oldest[env]]
        if not self.rows:
            return {}
        finals = stripes.finals.of(_index(stripes, self.rows).numpy())
        finals = map_tree(torch.from_numpy, finals)
        return {"rows": torch.tensor(self.rows), **named_leaves(finals, "final")}

    def load_state_dict(self, stripes: Stripes, state: dict[str, Any]) -> None:
        """Make the saved seams again, after the rows have been given back."""
        self.rows = []
        if state:
            layout = observation_layout(stripes.spec.observation)
            named = {
                path: state[f"final.{path}" if path else "final"] for path, _ in leaves(layout)
            }
            rows = [(env, position) for env, position in state["rows"].tolist()]
            self._make(stripes, rows, map_tree(lambda t: t.numpy(), rebuild(layout, named)))

    def _make(self, stripes: Stripes, rows: list[tuple[int, int]], finals: Any) -> None:
        index = _index(stripes, rows)
        stripes.outcome[index, BOUNDARY] = 1.0
        stripes.finals.drop(index.numpy())
        stripes.finals.keep(index.numpy(), finals)
        self.rows += rows


def _index(stripes: Stripes, rows: list[tuple[int, int]]) -> Tensor:
    pairs = np.asarray(rows, np.int64).reshape(-1, 2)
    return torch.from_numpy(pairs[:, 0] * stripes.rows + pairs[:, 1] % stripes.rows)
