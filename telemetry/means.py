"""Means of metrics that stay tensors until they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from coach.core.device import fetch
from torch import Tensor


class Means:
    """Sums up scalar tensors by name.

    Numbers are added one by one in double precision, so that it does not matter when they are
    fetched: a run with a checkpoint in between adds up to the same bits.
    """

    def __init__(self) -> None:
        self._pending: list[Mapping[str, Tensor]] = []
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Note some scalars; nothing is fetched yet."""
        if metrics:
            self._pending.append(metrics)

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        self._fetch()
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Unfinished sums and counts."""
        self._fetch()
        return {name: list(pair) for name, pair in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._sums = {name: (total, count) for name, (total, count) in state.items()}

    def _fetch(self) -> None:
        tensors: dict[str, list[Tensor]] = {}
        for metrics in self._pending:
            for name, tensor in metrics.items():
                tensors.setdefault(name, []).append(tensor)
        self._pending = []
        every = iter(fetch([scalar for scalars in tensors.values() for scalar in scalars]))
        for name, scalars in tensors.items():
            total, count = self._sums.get(name, (0.0, 0))
            for scalar in islice(every, len(scalars)):
                total += scalar.item()
            self._sums[name] = (total, count + len(scalars))
