"""Single steps on their way into a ring, which takes many at once in the time of one."""

from __future__ import annotations

from operator import is_
from typing import Any

import torch
from coach.core.batch import Batch

_MOST_STEPS, _MOST_BYTES = 256, 2**18


class Staging:
    """Keeps copies of fragments of one step, to be handed on as one fragment.

    Writing to a ring costs some 40 microseconds however little is written, a copy here a tenth.
    Sources fill the same tensors anew for each fragment, so these are taken apart once.

    Args:
        most_steps: that the ring takes at once.
        step_bytes: of a step of all environments.
    """

    def __init__(self, most_steps: int, step_bytes: int) -> None:
        self.most = min(_MOST_STEPS, most_steps, _MOST_BYTES // max(1, step_bytes))
        #: Steps that wait.
        self.count = 0
        self._waiting: Batch | None = None  # `most` steps, of which `count` are filled
        # What the fragment before consisted of, as objects: where sources take turns with several,
        # nothing is kept.
        self._known: tuple[Any, ...] = (None,) * 7
        self._pairs: list[tuple[Any, Any]] = []  # arrays that are filled, and what with
        self._transitions = 0

    @property
    def full(self) -> bool:
        """Whether what waits has to be taken before more is added."""
        return self.count == self.most

    def add(self, fragment: Batch) -> int:
        """Copy a fragment ``[1, n]``; must not be `full`.

        Returns:
            Its number of transitions; 0 if it was not taken and has to be written by itself, after
            what waits.
        """
        parts = _parts(fragment)
        if not all(map(is_, parts, self._known)):
            if not self.count and self._suits(fragment):
                self._known, self._pairs = parts, []
            return 0
        if not fragment.continues or fragment.extras:
            return 0
        if not self._pairs:
            self._prepare(fragment)
        step = self.count
        for filled, source in self._pairs:
            filled[step] = source
        self.count = step + 1
        return self._transitions

    def take(self) -> Batch:
        """All that waits as one fragment ``[count, n]``; its tensors are used again."""
        assert self._waiting is not None
        taken = self._first if self.count == 1 else self._waiting[: self.count]
        self.count = 0
        return taken

    def _suits(self, fragment: Batch) -> bool:
        # The entries of a dict could be exchanged without anybody noticing here.
        return self.most > 1 and len(fragment) == 1 and not isinstance(fragment.obs, dict)

    def _prepare(self, fragment: Batch) -> None:
        self._transitions = fragment.steps
        held = fragment.map(lambda t: torch.zeros((self.most, *t.shape[1:]), dtype=t.dtype))
        held.state = None
        self._waiting, self._first = held, held[:1]  # one alone comes with every update of SAC's
        pairs = zip(_parts(held)[:-1], _parts(fragment)[:-1])
        self._pairs = [(mine.numpy(), theirs.numpy()[0]) for mine, theirs in pairs]


def _parts(fragment: Batch) -> tuple[Any, ...]:
    """The tensors of its steps, and last whose steps they are."""
    return (
        fragment.obs,
        fragment.action,
        fragment.reward,
        fragment.discount,
        fragment.next_obs,
        fragment.boundary,
        fragment.env_ids,
    )
