"""Whole episodes of the current policy: collected to their end, learned from, dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from coach.core.batch import Batch, map_tree
from coach.core.device import upload
from coach.core.errors import SettingError
from coach.core.layout import transition_bytes
from coach.core.memory import Memory, Prepare, never
from coach.core.registry import register
from coach.core.schema import Count, Fraction
from coach.core.spec import Spec
from coach.memories.rollout import packed, unpacked


@register("memory", "episodes")
class Episodes(Memory):
    """Waits for ``episodes`` to end, then owes ``epochs`` passes over them.

    Returns then reach to the end of an episode, as in REINFORCE (Williams, 1992); a rollout cuts
    them off at its horizon. They are handed to `Agent.prepare` one behind the other, as a column
    ``[T, 1]``; minibatches are made of its transitions or, for agents that ask for sequences, are
    all of it.

    Args:
        episodes: that are waited for, over all environments.
        epochs: passes over them.
        batch_size: transitions per minibatch, where they are single ones; left out, all are one.
        longest: steps after which an episode is cut in two, as a time limit would; the recurrent
            state begins anew there.
        discount: gamma, per environment step.
    """

    order = "rollout"
    fragment_length = 16

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        seed: int = 0,
        sequences: bool = False,
        episodes: Count = 1,
        epochs: Count = 1,
        batch_size: Count | None = None,
        longest: Count = 10_000,
        discount: Fraction = 0.99,
    ) -> None:
        self.num_envs, self.sequences = num_envs, sequences
        self.episodes, self.epochs, self.batch_size = episodes, epochs, batch_size
        self.longest, self.discount = longest, discount
        self.nbytes = (num_envs + episodes) * longest * transition_bytes(spec)
        self.rng = torch.Generator().manual_seed(seed)
        self._ended: list[Batch] = []
        self._going_on: dict[int, list[Batch]] = {}  # pieces of every environment's episode

    def divided(self, settings: dict[str, Any], workers: int, together: bool) -> dict[str, Any]:
        if together:
            raise SettingError(
                "type",
                "episodes end when they end, so workers that average gradients would wait for each "
                "other",
                "Set memory.type to rollout, or use --mode async.",
            )
        return settings

    def write(self, fragment: Batch) -> None:
        ids = range(fragment.reward.shape[1])
        if fragment.env_ids is not None:
            ids = fragment.env_ids.tolist()  # type: ignore[assignment]
        for column, env in enumerate(ids):
            if not fragment.continues:
                self._cut(env)
            self._write(env, fragment.columns(torch.tensor([column])))

    def batches(self, prepare: Prepare, more: Callable[[], bool] = never) -> Iterator[Batch]:
        while len(self._ended) >= self.episodes:
            ready, self._ended = self._ended[: self.episodes], self._ended[self.episodes :]
            column = replace(Batch.join(ready, 0), env_ids=None)  # [T, 1], one behind the other
            prepared = prepare(replace(column, discount=column.discount * self.discount)).flatten()
            yield from self._whole(prepared) if self.sequences else self._transitions(prepared)

    def monitor(self) -> dict[str, float]:
        held = [*self._ended, *(piece for pieces in self._going_on.values() for piece in pieces)]
        return {"steps": float(sum(len(piece) for piece in held))}

    def state_dict(self) -> dict[str, Any]:
        envs = [env for env, pieces in self._going_on.items() for _ in pieces]
        pieces = [piece for pieces in self._going_on.values() for piece in pieces]
        return {
            "rng": self.rng.get_state(),
            "envs": envs,
            **packed([*self._ended, *pieces]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["rng"])
        parts, envs = unpacked(state), state["envs"]
        self._ended = parts[: len(parts) - len(envs)]
        self._going_on = {}
        for env, piece in zip(envs, parts[len(self._ended) :]):
            self._going_on.setdefault(env, []).append(piece)

    def _write(self, env: int, column: Batch) -> None:
        """Put the steps of one environment ``[T, 1]`` behind what is there of its episode."""
        pieces = self._going_on.setdefault(env, [])
        if sum(len(piece) for piece in pieces) >= self.longest:
            self._cut(env)
            pieces = self._going_on.setdefault(env, [])
        begin = 0
        for end in [*(column.boundary[:, 0].nonzero()[:, 0] + 1).tolist(), len(column)]:
            if begin == end:
                continue
            piece = column[begin:end].clone()
            if begin:  # an episode of its own: what the network remembered is gone
                piece = replace(piece, state=map_tree(torch.zeros_like, piece.state))
            pieces.append(piece)
            if piece.boundary[-1, 0]:
                self._ended.append(Batch.join(pieces, 0))
                pieces = self._going_on[env] = []
            begin = end

    def _cut(self, env: int) -> None:
        """End an unfinished episode where it stands, as a time limit would."""
        pieces = self._going_on.pop(env, [])
        if pieces:
            pieces[-1].boundary[-1] = True
            self._ended.append(Batch.join(pieces, 0))

    def _transitions(self, prepared: Batch) -> Iterator[Batch]:
        flat = replace(prepared, state=None, length=1)
        size = self.batch_size or flat.steps
        for _ in range(self.epochs):
            if size >= flat.steps:
                yield flat
                continue
            order = torch.randperm(flat.steps, generator=self.rng)
            (order,) = upload([order], flat.reward.device)  # once for all minibatches
            for index in torch.split(order, size):
                yield flat.rows(index)

    def _whole(self, prepared: Batch) -> Iterator[Batch]:
        for _ in range(self.epochs):
            yield prepared
