"""What is needed to bring environments back: which episode it is, and the actions taken in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.errors import CoachError
from numpy.typing import NDArray


class History:
    """Numbers the episodes of some environments and remembers the actions of unfinished ones.

    Args:
        num_envs: how many.
        seed: of the run.
        first_env: global id of the first environment.
    """

    def __init__(self, num_envs: int, seed: int, first_env: int = 0) -> None:
        self.seed, self.first_env = seed, first_env
        self.episode = [-1] * num_envs
        self.actions: list[list[NDArray[Any]]] = [[] for _ in range(num_envs)]

    def begin(self, i: int) -> int:
        """Go on to the next episode of environment ``i``; returns its seed."""
        self.episode[i] += 1
        self.actions[i] = []
        return episode_seed(self.seed, self.first_env + i, self.episode[i])

    def record(self, i: int, action: NDArray[Any]) -> None:
        """Note a step; ``action`` is kept, so it must not be changed afterwards."""
        self.actions[i].append(action)

    def state_dict(self) -> dict[str, Any]:
        """Episode numbers, and the actions since each episode began."""
        state: dict[str, Any] = {"episode": list(self.episode)}
        for i, actions in enumerate(self.actions):
            if actions:
                state[f"actions.{i}"] = torch.from_numpy(np.stack(actions))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.episode = list(state["episode"])
        self.actions = [list(taken(state, i)) for i in range(len(self.episode))]


def taken(state: dict[str, Any], i: int) -> NDArray[Any]:
    """The actions ``[T, ...]`` since the episode of environment ``i`` began."""
    actions = state.get(f"actions.{i}")
    return np.empty(0) if actions is None else np.asarray(actions)


def share(state: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    """What concerns the environments ``begin`` to ``end``, numbered from 0."""
    part: dict[str, Any] = {"episode": state["episode"][begin:end]}
    for i in range(begin, end):
        if f"actions.{i}" in state:
            part[f"actions.{i - begin}"] = state[f"actions.{i}"]
    return part


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
