"""What workers that exchange gradients count, in memory that all of them see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from coach.core.layout import Zeros
from coach.core.source import Episode
from numpy.typing import NDArray


@dataclass
class Ledger:
    """What workers count in shared memory; each writes its own row.

    Args:
        steps: ``[W]`` environment steps.
        updates: ``[W]`` updates.
        beats: ``[W]`` steps and updates, counted as they happen: signs of life.
        stop: ``[1]`` not 0 once the run is to end.
        ended: ``[W]`` episodes.
        mailbox: ``[W, rows, 4]`` fragment, environment, value and length of the last episodes.
        episode: ``[N]`` number of every environment's episode.
    """

    steps: NDArray[np.int64]
    updates: NDArray[np.int64]
    beats: NDArray[np.int64]
    stop: NDArray[np.int64]
    ended: NDArray[np.int64]
    mailbox: NDArray[np.float64]
    episode: NDArray[np.int64]

    @staticmethod
    def allocate(workers: int, num_envs: int, fragment_length: int, zeros: Zeros) -> Ledger:
        """A ledger in memory made by ``zeros``; its mailbox holds two fragments of any worker."""
        rows = 2 * fragment_length * -(-num_envs // workers) + 64

        def counts(size: int) -> NDArray[np.int64]:
            return zeros((size,), torch.int64).numpy()

        return Ledger(
            steps=counts(workers),
            updates=counts(workers),
            beats=counts(workers),
            stop=counts(1),
            ended=counts(workers),
            mailbox=zeros((workers, rows, 4), torch.float64).numpy(),
            episode=counts(num_envs),
        )

    def post(self, number: int, fragment: int, episodes: list[Episode]) -> None:
        """Note the episodes of a worker that ended in one of its fragments."""
        rows = self.mailbox[number]
        for episode in episodes:
            row = rows[self.ended[number] % len(rows)]
            row[:] = fragment, episode.env_id, episode.value, episode.length
            self.ended[number] += 1

    def read(self, number: int, before: int, until: int | None) -> list[Episode]:
        """Episodes of a worker after its first ``before``, of no fragment after ``until``."""
        rows, ended = self.mailbox[number], int(self.ended[number])
        found = []
        for row in range(max(before, ended - len(rows)), ended):
            fragment, env, value, length = rows[row % len(rows)].tolist()
            if until is None or fragment <= until:
                found.append(Episode(int(env), value, int(length)))
        return found
