"""Ring storage of transitions, one contiguous stripe per environment.

Each observation is stored once: the next observation of a row is the observation of the row behind
it; of stacked pictures only the newest is (see observations.py). Where an episode ended, the row
behind it belongs to the next episode, so the true final observation is kept in a side table. One
row per stripe, the one behind the newest, holds the observation to come and is not part of the
memory yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from coach.core.batch import Batch, map_tree
from coach.core.errors import SettingError
from coach.core.layout import (
    Zeros,
    action_layout,
    allocate,
    as_numpy,
    observation_layout,
    row_bytes,
    untouched_zeros,
)
from coach.core.spec import Spec
from coach.functional.returns import n_step_returns
from coach.memories.finals import Finals
from coach.memories.observations import both, expected_bytes, margin_of, put, ring_for, saved_bytes
from coach.memories.seams import Seams
from numpy.typing import NDArray
from torch import Tensor

REWARD, TERMINATED, BOUNDARY = 0, 1, 2
OUTCOME_BYTES = 3 * 4 + 4  # reward and two flags as float32, index of the final observation


#: Of what was noted of all rows, for some rows: see `look_up`.
LookUp: TypeAlias = Callable[
    [NDArray[np.float32], NDArray[np.int64], int, float], tuple[NDArray[Any], ...]
]


def look_up(
    outcomes: NDArray[np.float32], index: NDArray[np.int64], rows: int, gamma: float
) -> tuple[NDArray[Any], ...]:
    """What single steps came to.

    Args:
        outcomes: ``[M, 3]`` reward, whether it was terminal and whether a boundary, of all rows.
        index: ``[B]`` of the steps.
        rows: of a stripe.
        gamma: discount.

    Returns:
        ``[B]`` each: reward, discount, the index of the row behind, and whether it is a boundary.
    """
    outcome = outcomes.take(index, 0)  # [B, 3]
    behind = index + 1
    behind -= rows * (behind % rows == 0)
    discount = gamma * (1 - outcome[:, TERMINATED])
    return outcome[:, REWARD].copy(), discount, behind, outcome[:, BOUNDARY] > 0


class Stripes:
    """Storage for ``num_envs`` stripes of ``capacity / num_envs`` transitions.

    A row's *index* is ``env * rows + row``; it is what samplers deal in.

    Args:
        spec: observation and action to store.
        num_envs: number of stripes.
        capacity: transitions over all stripes.
        zeros: makes the memory that observations lie in.
        kept: names of numbers among a fragment's extras that are stored with every step.
    """

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        capacity: int,
        zeros: Zeros = untouched_zeros,
        kept: Sequence[str] = (),
    ) -> None:
        self.num_envs, self.spec, self._zeros = num_envs, spec, zeros
        self.layout = observation_layout(spec.observation)
        self.held = -(-capacity // num_envs)  # transitions of a stripe
        self.rows = self.held + 1 + margin_of(self.layout)
        self.size = self.rows * num_envs
        other = row_bytes(action_layout(spec.action)) + OUTCOME_BYTES + 4 * len(kept)
        #: Bytes of the observations, and of all of it.
        self.observation_bytes = self.size * expected_bytes(self.layout)
        self.nbytes = self.observation_bytes + self.size * other
        self._other_bytes = other
        self.written = np.zeros(num_envs, np.int64)  # rows ever written, per stripe
        #: Position of the first row that was not lost, per stripe; see `Memory.forget`.
        self.first: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self.seams = Seams()
        #: Numbers that agents noted, ``[num_envs * rows]`` each, see `Agent.kept_extras`.
        self.kept = {name: untouched_zeros((self.size,), torch.float32) for name in kept}
        #: `look_up`, or another form of it that a sampler brings along.
        self.look_up: LookUp = look_up

    @property
    def saved_bytes(self) -> int:
        """Bytes of a row on disk."""
        return self._other_bytes + (saved_bytes(self.ring) if self.allocated else 0)

    @property
    def counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Transitions held per stripe."""
        return np.asarray(np.minimum(self.written - self.first, self.held))

    def __len__(self) -> int:
        """Transitions held."""
        if self.num_envs == 1:  # asked for in every draw
            return min(int(self.written[0]) - int(self.first[0]), self.held)
        return int(self.counts.sum())

    def forget(self, before: list[int]) -> Tensor:
        """Hold no rows before these positions, one per stripe; returns the indices of those."""
        oldest = self.written - self.counts
        self.first = np.maximum(self.first, np.asarray(before, np.int64))
        lost = [
            env * self.rows + np.arange(begin, max(begin, end)) % self.rows
            for env, (begin, end) in enumerate(zip(oldest, self.first))
        ]
        return torch.from_numpy(np.concatenate(lost))

    def write(self, fragment: Batch) -> tuple[Tensor, Tensor]:
        """Copy a fragment ``[T, n]``.

        Returns:
            The indices written, and the indices that are no transitions any more.
        """
        steps, count = fragment.reward.shape
        if steps > self.held:
            raise SettingError(
                "memory.capacity",
                f"{self.held} transitions per environment are fewer than a fragment's {steps}",
                "Raise memory.capacity or lower run.fragment_length.",
            )
        obs, next_obs = as_numpy(fragment.obs), as_numpy(fragment.next_obs)
        if not self.allocated:
            self.allocate(*(map_tree(lambda a: a[:, 0], tree) for tree in (obs, next_obs)))
        first = 0 if fragment.env_ids is None else int(fragment.env_ids[0])
        envs = slice(first, first + count)
        if not fragment.continues:
            self.seams.cut(self, range(first, first + count))
        start = int(self.written[first])
        rows = (start + np.arange(steps + 1)) % self.rows
        index = np.arange(first, first + count)[:, None] * self.rows + rows  # [n, T + 1]
        self.finals.drop(index)
        reward, discount = fragment.reward.numpy().T, fragment.discount.numpy().T  # [n, T]
        boundary = fragment.boundary.numpy().T
        put(self.ring, envs, rows[:-1], map_tree(lambda a: a.swapaxes(0, 1), obs))
        put(self.ring, envs, rows[-1:], map_tree(lambda a: a[-1][:, None], next_obs))
        # A ring of `rows` and at most rows - 1 steps: one or two straight copies.
        split = min(steps, self.rows - int(rows[0]))
        for begin, end in ((0, split), (split, steps)):
            if begin < end:
                at = (envs, slice(int(rows[begin]), int(rows[begin]) + end - begin))
                self._action[at] = fragment.action.numpy()[begin:end].swapaxes(0, 1)
                for name, table in self.kept.items():
                    noted = fragment.extras[name].numpy()[begin:end]  # [steps, n]
                    table.numpy().reshape(self.num_envs, self.rows)[at] = noted.T
                outcome = self._outcome[at]  # [n, steps, 3]
                outcome[..., REWARD] = reward[:, begin:end]
                np.equal(discount[:, begin:end], 0, out=outcome[..., TERMINATED], casting="unsafe")
                outcome[..., BOUNDARY] = boundary[:, begin:end]
        self.written[envs] = start + steps
        if boundary.any():
            env, step = np.nonzero(boundary)  # [E] each
            finals = map_tree(lambda a: a[step, env], next_obs)
            self.finals.keep(index[env, step], finals)
        oldest = start + steps - self.held  # those before it are too old, if they are there at all
        gone = np.arange(max(0, oldest - min(steps, self.rows - 1 - self.held)), max(0, oldest))
        dropped = [index[:, -1:], index[:, :1] - rows[0] + gone % self.rows]
        return (
            torch.from_numpy(index[:, :-1].reshape(-1)),
            torch.from_numpy(np.concatenate(dropped, 1).reshape(-1)),
        )

    def gather(self, index: Tensor, gamma: float, n_step: int) -> Batch:
        """The transitions at ``index`` ``[B]`` with ``n_step`` returns and true next observations.

        Returns stop at boundaries and at the newest row, with the matching discount.
        """
        at = index.numpy()
        if n_step == 1:
            *returned, behind, ended = self.look_up(self._outcomes, at, self.rows, gamma)
            reward, discount = map(torch.from_numpy, returned)
            last = at
        else:
            reward, discount, last = self._summed(index, gamma, n_step)
            *_, behind, ended = self.look_up(self._outcomes, last, self.rows, gamma)
        which = ended.nonzero()[0]
        obs, next_obs = both(self.ring, at, behind, which, self.finals.of(last[which]))
        return Batch(
            obs=map_tree(torch.from_numpy, obs),
            action=torch.from_numpy(self._actions.take(at, 0)),
            reward=reward,
            discount=discount,
            next_obs=map_tree(torch.from_numpy, next_obs),
            boundary=torch.from_numpy(ended),
            extras={name: table[index] for name, table in self.kept.items()},
            index=index,
        )

    def future(self, index: Tensor, key: str, offsets: tuple[int, ...]) -> dict[str, Tensor]:
        """An entry of a Dict observation as it was so many steps after ``index`` ``[B]``.

        Under ``future`` ``[B, O, ...]``, for each of ``O`` offsets. ``future_known`` ``[B, O]`` is
        false where the episode, or what has been stored of it, ends before. There ``future`` is
        what was seen last; ``future_over`` ``[B, O]`` says that this was a terminal state.
        """
        first, row, reach, last = self._reached(index.numpy(), max(offsets))
        ahead = np.asarray(offsets)
        steps = np.minimum(ahead, reach[:, None])  # [B, O]
        places = first[:, None] + (row[:, None] + steps) % self.rows
        flat = self.ring[key].take(places.reshape(-1))
        found = flat.reshape(*steps.shape, *flat.shape[1:])  # [B, O, ...]
        ended = self._outcomes[last, BOUNDARY] > 0
        at, offset = ((steps == reach[:, None]) & ended[:, None]).nonzero()
        finals = self.finals.of(last[ended])[key]
        found[at, offset] = finals[np.cumsum(ended)[at] - 1]
        known = ahead <= reach[:, None]
        over = (self._outcomes[last, TERMINATED] > 0)[:, None] & ~known
        tensors = map(torch.from_numpy, (found, known, over))
        return dict(zip(("future", "future_known", "future_over"), tensors))

    def _reached(self, index: NDArray[np.int64], horizon: int) -> tuple[NDArray[np.int64], ...]:
        """The stripe's first row, the row in it, known steps ahead, and the last row's index."""
        row = index % self.rows
        first = index - row
        newest = ((self.written - 1) % self.rows)[first // self.rows]
        ahead = np.arange(horizon)
        places = first[:, None] + (row[:, None] + ahead) % self.rows  # [B, horizon]
        ends = self._outcomes.reshape(-1).take(3 * places + BOUNDARY) > 0
        ends |= ahead >= ((newest - row) % self.rows)[:, None]
        ends[:, -1] = True
        reach = ends.argmax(1) + 1
        return first, row, reach, places[np.arange(len(row)), reach - 1]

    def _summed(
        self, index: Tensor, gamma: float, n_step: int
    ) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Returns, discounts and the index of the last row of each ``[B]``."""
        stripe, row = index // self.rows, index % self.rows
        newest = torch.from_numpy((self.written - 1) % self.rows)[stripe]
        ahead = torch.arange(n_step)
        rows = (row[:, None] + ahead) % self.rows  # [B, n]
        outcome = self.outcome[stripe[:, None] * self.rows + rows]  # [B, n, 3]
        cut = ahead == ((newest - row) % self.rows)[:, None]
        reward, discount, offset = n_step_returns(
            outcome[..., REWARD],
            outcome[..., TERMINATED] > 0,
            (outcome[..., BOUNDARY] > 0) | cut,
            gamma,
        )
        last = stripe * self.rows + (row + offset) % self.rows
        return reward, discount, last.numpy()

    def age(self, index: Tensor) -> float:
        """Mean age of rows, in steps of their environment."""
        stripe, row = index // self.rows, index % self.rows
        newest = torch.from_numpy((self.written - 1) % self.rows)[stripe]
        return float(((newest - row) % self.rows).float().mean())

    @property
    def allocated(self) -> bool:
        """Whether anything has been stored yet."""
        return hasattr(self, "finals")

    def allocate(self, before: Any, after: Any) -> None:
        """Take the memory, in a form that suits observations ``[M, ...]`` and what came next."""
        self.ring = ring_for(self.layout, self.num_envs, self.rows, before, after, self._zeros)
        action = allocate(
            action_layout(self.spec.action), self.num_envs, self.rows, zeros=untouched_zeros
        )
        self._action, self.action = action.numpy(), action.flatten(0, 1)
        outcome = untouched_zeros((self.num_envs, self.rows, 3), torch.float32)
        self._outcome, self.outcome = outcome.numpy(), outcome.flatten(0, 1)
        self._actions, self._outcomes = self.action.numpy(), self.outcome.numpy()
        self.finals = Finals(self.layout, self.size)
