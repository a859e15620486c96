"""One place in the ring: a fragment, and what else is to be said about it."""

from __future__ import annotations

from typing import Any

import torch
from coach.core.layout import Zeros
from coach.core.source import Episode
from coach.core.spec import Spec
from coach.runners.fragment import FragmentBuffer
from torch import Tensor


class Slot:
    """A fragment in memory that an actor writes and the learner reads, in turn.

    Args:
        spec: of one environment.
        length: steps.
        env_ids: ``[N]`` global ids of the actor's environments.
        acted: example of what the agent records with each action.
        state: example of its recurrent state.
        zeros: allocates from the shared block.
    """

    def __init__(
        self,
        spec: Spec,
        length: int,
        env_ids: Tensor,
        acted: dict[str, Tensor],
        state: Any,
        zeros: Zeros,
    ) -> None:
        count = len(env_ids)
        self.fragment = FragmentBuffer(spec, length, env_ids, acted, state, zeros)
        self.version = zeros((1,), torch.int64).numpy()
        self.seconds = zeros((3,), torch.float64).numpy()  # in environments, acting, waiting
        self.episode = zeros((count,), torch.int64).numpy()  # number of each unfinished episode
        self.dropped = zeros((1,), torch.int64).numpy()  # episodes, because of bad values
        self._finished = zeros((1,), torch.int64).numpy()
        self._episodes = zeros((length * count, 3), torch.float64).numpy()

    def write_episodes(self, episodes: list[Episode]) -> None:
        """Note the episodes that ended in the fragment."""
        self._finished[0] = len(episodes)
        for row, episode in zip(self._episodes, episodes):
            row[:] = episode.env_id, episode.value, episode.length

    def read_episodes(self) -> list[Episode]:
        """The episodes that ended in the fragment."""
        rows = self._episodes[: int(self._finished[0])].tolist()
        return [Episode(int(env), value, int(length)) for env, value, length in rows]
