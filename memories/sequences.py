"""Which stretches of a ring are handed out as sequences, and the recurrent state before each.

Steps are stored once, in `Stripes`, however many sequences they belong to. Sequence ``k`` of an
environment is its steps from ``k * apart`` on, so nothing has to be remembered but the states that
acting was in before these steps. A state is known where a fragment begins, which is why fragments
of recurrent policies have to begin wherever a sequence does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.batch import Batch, flat, refilled
from coach.core.errors import SettingError
from coach.memories.stripes import LookUp, Stripes
from numpy.typing import NDArray
from torch import Tensor


class Sequences:
    """Sequences of ``length`` steps, beginning ``apart`` steps behind each other.

    They are numbered per environment from the first on. To samplers this looks like `Stripes` with
    a row per sequence: a sequence's *index* is ``env * rows + number % rows``, ``written`` counts
    those that are complete, and ``counts`` those of them that are still held.

    Args:
        stripes: where the steps are.
        length: steps of a sequence.
        apart: steps between the beginnings of two.
    """

    def __init__(self, stripes: Stripes, length: int, apart: int) -> None:
        self.stripes, self.length, self.apart = stripes, length, apart
        self.num_envs = stripes.num_envs
        self.rows = stripes.held // apart + 1  # enough for the unfinished ones too
        self.size = self.rows * self.num_envs
        #: The state's form with numbers for its tensors, and these, ``[size, ...]`` each.
        self.layout: Any = None
        self.states: list[Tensor] = []

    @property
    def written(self) -> NDArray[np.int64]:
        """Sequences completed so far, per environment."""
        return np.asarray(np.maximum((self.stripes.written - self.length) // self.apart + 1, 0))

    @property
    def first(self) -> NDArray[np.int64]:
        """Number of the oldest sequence whose first step is still held, per environment."""
        oldest = self.stripes.written - self.stripes.counts
        return np.asarray(-(-oldest // self.apart))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Complete sequences held, per environment."""
        return np.asarray(np.maximum(self.written - self.first, 0))

    def __len__(self) -> int:
        """Complete sequences held."""
        return int(self.counts.sum())

    @property
    def look_up(self) -> LookUp:
        """That of the steps."""
        return self.stripes.look_up

    @look_up.setter
    def look_up(self, compiled: LookUp) -> None:
        self.stripes.look_up = compiled

    def write(self, fragment: Batch) -> tuple[Tensor, Tensor]:
        """Store a fragment ``[T, n]``.

        Returns:
            The indices of sequences that it completed, and of those that are gone.

        Raises:
            SettingError: a sequence begins where the state is not known.
        """
        steps, count = fragment.reward.shape
        env = 0 if fragment.env_ids is None else int(fragment.env_ids[0])
        start = int(self.stripes.written[env])
        number = -(-start // self.apart)  # of the next sequence that begins
        begins = number * self.apart
        state = flat(fragment.state)
        if (
            state
            and begins < start + steps
            and (begins > start or start + self.apart < start + steps)
        ):
            raise self.misfit(steps)
        complete, oldest = self.written, self.first
        self.stripes.write(fragment)
        if state and begins == start:
            index = np.arange(env, env + count) * self.rows + number % self.rows
            self._keep(fragment.state, torch.from_numpy(index))
        added = self._between(np.maximum(complete, self.first), self.written)
        dropped = np.setdiff1d(self._between(oldest, self.first), added)
        return torch.from_numpy(added), torch.from_numpy(dropped)

    def forget(self, before: list[int]) -> Tensor:
        """Hold no steps before these positions, and return the sequences lost with them."""
        oldest = self.first
        self.stripes.forget(before)
        return torch.from_numpy(self._between(oldest, np.maximum(oldest, self.first)))

    def steps_of(self, index: Tensor) -> Tensor:
        """``[length * M]`` where in the stripes the steps of ``M`` sequences are, time-major."""
        env, place = np.divmod(index.numpy(), self.rows)
        first = self.first[env]
        number = first + (place - first) % self.rows
        row = (number * self.apart + np.arange(self.length)[:, None]) % self.stripes.rows
        return torch.from_numpy((env * self.stripes.rows + row).reshape(-1))

    def states_of(self, index: Tensor) -> Any:
        """The recurrent state before each of ``M`` sequences; ``None`` where there is none."""
        return refilled(self.layout, iter([table[index] for table in self.states]))

    def state_bytes(self) -> int:
        """Bytes of the state before one sequence."""
        return sum(table[0].nbytes for table in self.states)

    def rows_since(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> dict[str, Tensor]:
        """The states before sequences that begin at steps ``begin`` to ``end`` of each stripe."""
        index = torch.from_numpy(self._between(*self._numbers(begin, end)))
        return {f"state.{n}": table[index] for n, table in enumerate(self.states)}

    def load_rows(
        self, tensors: dict[str, Tensor], begin: NDArray[np.int64], end: NDArray[np.int64]
    ) -> None:
        """Put back what `rows_since` returned for the same steps."""
        index = torch.from_numpy(self._between(*self._numbers(begin, end)))
        number = 0
        while (saved := tensors.get(f"state.{number}")) is not None:
            if len(self.states) == number:
                self.states.append(saved.new_zeros(self.size, *saved.shape[1:]))
            self.states[number][index] = saved
            number += 1

    def misfit(self, steps: int) -> SettingError:
        """What to say about fragments of so many steps."""
        return SettingError(
            "run.fragment_length",
            f"sequences begin every {self.apart} steps, and the recurrent state must be known "
            f"there, but fragments of {steps} steps do not begin wherever they do",
            f"Leave it out, or let it divide {self.apart}, which is memory.length minus "
            "memory.overlap.",
        )

    def _keep(self, state: Any, index: Tensor) -> None:
        leaves = flat(state)
        if self.layout is None:
            self.layout = refilled(state, iter(range(len(leaves))))
        if not self.states:
            self.states = [leaf.new_zeros(self.size, *leaf.shape[1:]) for leaf in leaves]
        for table, leaf in zip(self.states, leaves):
            table[index] = leaf

    def _numbers(
        self, begin: NDArray[np.int64], end: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sequences that begin within these steps."""
        return -(-begin // self.apart), -(-end // self.apart)

    def _between(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of a range of numbers per environment."""
        begin = np.maximum(begin, end - self.rows)
        ranges = [np.arange(b, e) % self.rows for b, e in zip(begin, end)]
        return np.concatenate([env * self.rows + numbers for env, numbers in enumerate(ranges)])
