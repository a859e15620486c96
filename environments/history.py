"""What is needed to bring environments back: which episode it is, and the actions taken in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.errors import CoachError
from coach.environments.calls import say_once
from numpy.typing import NDArray

#: Steps of an episode that a checkpoint can repeat at most, and bytes of actions that are kept.
MOST_STEPS, MOST_BYTES = 100_000, 64 * 2**20
_FIRST_ROWS = 64


class History:
    """Numbers the episodes of some environments and keeps the actions of unfinished ones.

    An episode of more than ``most_steps`` steps cannot be repeated any more: its actions are
    dropped, so that neither memory nor checkpoints grow with a task that never ends.

    Args:
        num_envs: how many.
        seed: of the run.
        first_env: global id of the first environment.
        most_steps: of an episode that is to be repeated; fewer where actions are so large that
            `MOST_BYTES` would not hold them.
    """

    def __init__(
        self, num_envs: int, seed: int, first_env: int = 0, most_steps: int = MOST_STEPS
    ) -> None:
        self.seed, self.first_env, self.most_steps = seed, first_env, most_steps
        self.episode = [-1] * num_envs
        self._rows: NDArray[Any] = np.empty((0, num_envs))  # [steps, N, ...], the oldest first
        self._count = 0  # rows that are filled
        self._first = [0] * num_envs  # row of the first step to repeat; negative once dropped
        #: Lengths of the episodes that the present one went on from.
        self._earlier: list[list[int]] = [[] for _ in range(num_envs)]

    def begin(self, i: int, continues: bool = False) -> int:
        """Go on to the next episode of environment ``i``; returns its seed.

        Args:
            i: the environment.
            continues: the episode goes on where the last one ended, so bringing it back takes the
                actions of both.
        """
        self.episode[i] += 1
        if continues:
            self._earlier[i].append(self.length(i))
        else:
            self._first[i], self._earlier[i] = self._count, []
        return self.seed_of(i)

    def seed_of(self, i: int, back: int = 0) -> int:
        """The seed of the episode that environment ``i`` is in, or so many episodes ``back``."""
        return episode_seed(self.seed, self.first_env + i, self.episode[i] - back)

    def record(self, action: NDArray[Any]) -> None:
        """Note a step of all environments ``[N, ...]``; it is copied."""
        if self._count == len(self._rows):
            self._make_room(action)
        self._rows[self._count] = action
        self._count += 1

    def length(self, i: int) -> int:
        """Steps taken in the episode that environment ``i`` is in."""
        return self._count - self._first[i] - sum(self._earlier[i])

    def state_dict(self) -> dict[str, Any]:
        """Episode numbers, and the actions that lead to where each environment is.

        ``lost`` lists the environments that took too many of them.
        """
        state: dict[str, Any] = {"episode": list(self.episode)}
        lengths = [self._count - first for first in self._first]
        lost = [i for i, length in enumerate(lengths) if length > self.most_steps]
        for i, length in enumerate(lengths):
            if length and i not in lost:
                rows = self._rows[self._count - length : self._count, i]
                state[f"actions.{i}"] = torch.from_numpy(rows.copy())
            if self._earlier[i] and i not in lost:
                state[f"earlier.{i}"] = torch.tensor(self._earlier[i])
        if lost:
            state["lost"] = lost
            say_once(
                f"An episode has come to more than {self.most_steps:,} steps, which is more than "
                "a checkpoint keeps the actions of: a resumed run begins fresh episodes."
            )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.episode = list(state["episode"])
        episodes = [taken(state, i) for i in range(len(self.episode))]
        self._earlier = [[len(rows) for rows in each[:-1]] for each in episodes]
        actions = [np.concatenate(each) for each in episodes]
        self._count = max(map(len, actions))
        self._first = [self._count - len(rows) for rows in actions]
        for i, rows in enumerate(actions):
            if len(rows):
                if len(self._rows) != self._count:
                    self._rows = self._empty(self._count, rows[0])
                self._rows[self._first[i] :, i] = rows

    def _make_room(self, action: NDArray[Any]) -> None:
        """Drop rows that no episode needs, and take more memory if that is not enough."""
        self.most_steps = max(1, min(self.most_steps, MOST_BYTES // 2 // max(action.nbytes, 1)))
        needed = [first for first in self._first if self._count - first <= self.most_steps]
        oldest = min(needed, default=self._count)
        kept = self._count - oldest
        # At least half of what is there is free now, so that rows are not moved at every step.
        rows = self._rows
        if kept > len(rows) // 2 or not len(rows):
            size = min(max(2 * kept, _FIRST_ROWS), 2 * self.most_steps)
            rows = self._empty(size, action[0])
        if kept:  # before the first step nobody knows what an action looks like
            rows[:kept] = self._rows[oldest : self._count]
        self._rows, self._count = rows, kept
        self._first = [first - oldest for first in self._first]

    def _empty(self, size: int, example: NDArray[Any]) -> NDArray[Any]:
        return np.empty((size, len(self.episode), *np.shape(example)), example.dtype)


def taken(state: dict[str, Any], i: int) -> list[NDArray[Any]]:
    """The actions ``[T, ...]`` of environment ``i`` in each of the episodes to be repeated.

    The last of them is the present one; those before it are those that it went on from.
    """
    actions, earlier = state.get(f"actions.{i}"), state.get(f"earlier.{i}", [])
    every = np.empty(0) if actions is None else np.asarray(actions)
    return np.split(every, np.cumsum(np.asarray(earlier, np.int64)))


def share(state: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    """What concerns the environments ``begin`` to ``end``, numbered from 0."""
    part: dict[str, Any] = {"episode": state["episode"][begin:end]}
    lost = [i - begin for i in state.get("lost", ()) if begin <= i < end]
    if lost:
        part["lost"] = lost
    for i in range(begin, end):
        for name in ("actions", "earlier"):
            if f"{name}.{i}" in state:
                part[f"{name}.{i - begin}"] = state[f"{name}.{i}"]
    return part


def can_repeat(state: dict[str, Any]) -> bool:
    """Whether a state holds the actions of every unfinished episode; says so if it does not."""
    if state.get("lost"):
        say_once(
            "The checkpoint does not hold the actions of an episode that had too many steps: "
            "fresh episodes begin."
        )
    return not state.get("lost")


def check_restored(i: int, saved: NDArray[Any], now: NDArray[Any]) -> None:
    """Stop unless an environment came back to the observation that it was left with.

    Raises:
        CoachError: it did not: it is random beyond its seed, or keeps something from one episode
            to the next.
    """
    if saved.tobytes() != now.tobytes():  # as bytes: the same numbers, not-a-number included
        raise CoachError(
            f"Environment {i} did not come back to where it was: repeating its episode from the "
            "same seed led to another observation.",
            "Use an environment that is a function of its seed and actions; in place of wrappers "
            "that keep statistics over episodes (NormalizeObservation), set normalize_observations "
            "in the network. To continue with fresh episodes, pass "
            "--set run.restore_environments=false.",
        )


def episode_seed(seed: int, env_id: int, episode: int) -> int:
    """The seed of one episode: 31 bits from the run's seed, the environment and the count."""
    return int(np.random.SeedSequence((seed, env_id, episode)).generate_state(1)[0] >> 1)
