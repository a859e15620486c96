"""Rollouts of the current policy: collected, learned from for a few epochs, dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from coach.core.batch import Batch, leaves
from coach.core.device import upload
from coach.core.errors import SettingError
from coach.core.layout import transition_bytes
from coach.core.memory import Memory, Prepare, never, share_of_batch
from coach.core.registry import register
from coach.core.schema import Count, Fraction
from coach.core.spec import Spec


@register("memory", "rollout")
class Rollout(Memory):
    """Holds ``horizon`` steps of every environment, then owes ``epochs`` passes over them.

    Advantages are the agent's business (`Agent.prepare`); the memory applies the discount and
    shuffles. Minibatches are made of single transitions or, for agents that ask for sequences, of
    whole columns from the first step to the last.

    Args:
        horizon: steps per environment and rollout.
        epochs: passes over each rollout.
        batch_size: transitions per minibatch; left out, the whole rollout is one.
        discount: gamma, per environment step.
    """

    order = "rollout"

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        seed: int = 0,
        sequences: bool = False,
        horizon: Count = 128,
        epochs: Count = 4,
        batch_size: Count | None = None,
        discount: Fraction = 0.99,
    ) -> None:
        self.num_envs, self.sequences = num_envs, sequences
        self.horizon = self.fragment_length = horizon
        self.epochs, self.batch_size, self.discount = epochs, batch_size, discount
        self.nbytes = 2 * horizon * num_envs * transition_bytes(spec)
        self.rng = torch.Generator().manual_seed(seed)
        self._pending: list[Batch] = []

    def check_settings(self, say: Callable[[str], None]) -> None:
        size = self.horizon * self.num_envs
        if self.batch_size is not None and self.batch_size > size:
            raise SettingError(
                "batch_size",
                f"a rollout of {self.horizon} steps in {self.num_envs} "
                f"environment{'s' * (self.num_envs > 1)} has {size} transitions, fewer than a "
                f"minibatch of {self.batch_size}",
                f"Lower it to at most {size}, leave it out, or raise horizon.",
            )

    def divided(self, settings: dict[str, Any], workers: int, together: bool) -> dict[str, Any]:
        if not together or settings["batch_size"] is None:
            return settings
        size = settings["batch_size"]
        columns = max(1, size // self.horizon)
        if self.sequences and columns % workers:
            raise SettingError(
                "batch_size",
                f"a minibatch of {size} is {columns} whole sequences of {self.horizon} steps and "
                f"cannot be divided among {workers} workers that average gradients",
                f"Choose a multiple of {self.horizon * workers}, or another number of --workers.",
            )
        return {**settings, "batch_size": share_of_batch(size, workers)}

    def check_fragments(self, length: int) -> None:
        if self.horizon % length:
            raise self._misfit(length)

    def write(self, fragment: Batch) -> None:
        key = _environments(fragment)
        if not fragment.continues:
            self._cut(key)
        before = sum(len(part) for part in self._pending if _environments(part) == key)
        if before % self.horizon + len(fragment) > self.horizon:
            raise self._misfit(len(fragment))
        # One that makes up a rollout by itself is learned from before it can be written to again.
        whole = not self._pending and fragment.reward.shape == (self.horizon, self.num_envs)
        self._pending.append(fragment if whole else fragment.clone())

    def batches(self, prepare: Prepare, more: Callable[[], bool] = never) -> Iterator[Batch]:
        if sum(part.steps for part in self._pending) < self.horizon * self.num_envs:
            return
        rollout, rest = self._take()
        if rollout is None:
            return
        self._pending = rest
        whole = prepare(replace(rollout, discount=rollout.discount * self.discount))
        yield from self._columns(whole) if self.sequences else self._transitions(whole)

    def monitor(self) -> dict[str, float]:
        held = sum(part.steps for part in self._pending)
        return {"fill": held / (self.horizon * self.num_envs)}

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.get_state(), **packed(self._pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["rng"])
        self._pending = unpacked(state)

    def _cut(self, key: tuple[int, ...]) -> None:
        """End what these environments left unfinished where it stands, as a time limit would."""
        parts = [part for part in self._pending if _environments(part) == key]
        if parts:
            parts[-1].boundary[-1] = True

    def _take(self) -> tuple[Batch | None, list[Batch]]:
        """A rollout of as many environments as the run has, if complete, and what is left over.

        Fragments of one actor are put behind each other up to the horizon, those of different
        actors (or of one that was faster) beside each other.
        """
        growing: dict[tuple[int, ...], list[Batch]] = {}
        columns: list[Batch] = []
        count = 0
        for position, part in enumerate(self._pending):
            pieces = growing.setdefault(_environments(part), [])
            pieces.append(part)
            if sum(len(piece) for piece in pieces) < self.horizon:
                continue
            columns.append(Batch.join(growing.pop(_environments(part)), 0))
            count += columns[-1].reward.shape[1]
            if count >= self.num_envs:
                rest = [p for unfinished in growing.values() for p in unfinished]
                return Batch.join(columns, 1), rest + self._pending[position + 1 :]
        return None, self._pending

    def _transitions(self, whole: Batch) -> Iterator[Batch]:
        flat = replace(whole.flatten(), length=1, state=None)
        size = self.batch_size or flat.steps
        for _ in range(self.epochs):
            if size >= flat.steps:
                yield flat
                continue
            order = torch.randperm(flat.steps, generator=self.rng)
            (order,) = upload([order], flat.reward.device)  # once for all minibatches
            for index in torch.split(order, size):
                yield flat.rows(index)

    def _columns(self, whole: Batch) -> Iterator[Batch]:
        count = whole.reward.shape[1]
        size = count if self.batch_size is None else max(1, self.batch_size // self.horizon)
        whole = replace(whole, env_ids=None)  # nobody follows the columns of a minibatch
        for _ in range(self.epochs):
            if size >= count:
                yield whole.flatten()
                continue
            order = torch.randperm(count, generator=self.rng)
            (order,) = upload([order], whole.reward.device)
            for index in torch.split(order, size):
                yield whole.columns(index).flatten()

    def _misfit(self, length: int) -> SettingError:
        return SettingError(
            "run.fragment_length",
            f"rollouts of {self.horizon} steps cannot be put together from fragments of {length}",
            "Leave it out, or let it divide memory.horizon.",
        )


def _environments(fragment: Batch) -> tuple[int, ...]:
    return () if fragment.env_ids is None else tuple(fragment.env_ids.tolist())


def packed(parts: Sequence[Batch]) -> dict[str, Any]:
    """Fragments as entries of a state."""
    state: dict[str, Any] = {"versions": [part.version for part in parts]}
    for number, part in enumerate(parts):
        for name, leaf in leaves(_tree(part)):
            state[f"part.{number}.{name}"] = leaf
    return state


def unpacked(state: dict[str, Any]) -> list[Batch]:
    """The inverse of `packed`; other entries are left alone."""
    trees: list[dict[str, Any]] = [{} for _ in state["versions"]]
    for name, leaf in state.items():
        if name.startswith("part."):
            _, number, *path, last = name.split(".")
            node = trees[int(number)]
            for key in path:
                node = node.setdefault(key, {})
            node[last] = leaf
    return [Batch(**tree, version=v) for tree, v in zip(trees, state["versions"])]


def _tree(batch: Batch) -> dict[str, Any]:
    skipped = ("version", "length", "continues", "burn_in", "host_index")
    return {f.name: getattr(batch, f.name) for f in fields(batch) if f.name not in skipped}
