"""The one value that experience travels in, from the environments to the objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, TypeAlias

import torch
from coach.core.device import is_accelerator, upload
from torch import Tensor

#: An observation: a tensor, or a (nested) dict of tensors for Dict spaces.
Obs: TypeAlias = "Tensor | dict[str, Obs]"
#: Recurrent state carried from step to step; ``None`` for feed-forward networks.
State: TypeAlias = "Tensor | dict[str, State] | None"


def map_tree(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply ``function`` leaf by leaf over (nested) dicts of the same structure; ``None`` stays."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {
            key: map_tree(function, value, *(other[key] for other in others))
            for key, value in tree.items()
        }
    return function(tree, *others)


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of a (nested) dict with their dotted paths, in insertion order."""
    if isinstance(tree, dict):
        return [
            leaf
            for key, value in tree.items()
            for leaf in leaves(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if tree is None else [(prefix, tree)]


def flat(tree: Any) -> list[Any]:
    """The leaves of a (nested) dict, by the order of its keys: equal trees are alike."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in flat(tree[key])]
    return [] if tree is None else [tree]


def refilled(tree: Any, following: Iterator[Any]) -> Any:
    """The same tree with other leaves, in the order of `flat`."""
    if isinstance(tree, dict):
        return {key: refilled(tree[key], following) for key in sorted(tree)}
    return None if tree is None else next(following)


def rebuild(like: Any, flat: dict[str, Any], prefix: str = "") -> Any:
    """The inverse of `leaves`: a tree shaped as ``like`` with values from dotted paths."""
    if isinstance(like, dict):
        return {
            key: rebuild(value, flat, f"{prefix}.{key}" if prefix else str(key))
            for key, value in like.items()
        }
    return flat[prefix]


_OF_THE_WHOLE = (
    "version",
    "env_ids",
    "state",
    "length",
    "continues",
    "burn_in",
    "host_index",
)  # fields without an entry per step


def select(rows: Tensor, tree: Any, other: Any) -> Any:
    """``tree`` in the rows ``[N]`` that are true, ``other`` elsewhere."""

    def choose(one: Tensor, two: Tensor) -> Tensor:
        mask = rows.to(one.device).view(-1, *(1,) * (one.dim() - 1))
        return torch.where(mask, one, two)

    return map_tree(choose, tree, other)


_TENSORS = (
    "obs",
    "action",
    "reward",
    "discount",
    "next_obs",
    "boundary",
    "weight",
    "extras",
    "state",
    "index",
)
_BY_ROW = (*(name for name in _TENSORS if name not in _OF_THE_WHOLE), "host_index")
_PIECES = 16  # that `split` makes at once
_trees = attrgetter(*_TENSORS)


@dataclass
class Batch:
    """Transitions. A *fragment* is time-major ``[T, N]``, a *minibatch* ``[B]`` or ``[T, B]``.

    Args:
        obs: observation the action was chosen from.
        action: action as the agent produced it: each bounded dimension of a Box is [-1, 1], not yet
            clipped or scaled, see `coach.environments.actions`.
        reward: float32; an n-step return once the memory has formed it.
        discount: ``gamma**n * (1 - terminated)``: what the value of ``next_obs`` counts for. In a
            fragment fresh from the environments gamma is still 1: the memory applies it.
        next_obs: the true final observation at a boundary, never that of the following reset.
        boundary: bool; the episode ended here, terminated or truncated.
        weight: importance weight of each row in the loss; ``None`` means 1.
        extras: what the agent recorded while acting (log-probabilities, values) or prepared.
        version: learner version the actions were chosen under; -1 where it does not apply.
        env_ids: ``[N]`` global ids of the environments of a fragment.
        state: recurrent state before the first step of each column, leading dimension ``N``;
            ``None`` for feed-forward agents.
        length: steps per column of a flat batch: its rows are time-major ``[length, M]``,
            flattened. 1 where rows have nothing to do with each other.
        index: ``[B]`` where the rows live in the memory; owned by the memory.
        host_index: ``index`` on the CPU, where the batch was moved to an accelerator.
        burn_in: steps at the beginning of every column that only warm up the recurrent state.
        continues: whether a fragment goes on where the one before it, of the same environments,
            ended; not so where unfinished episodes had to be given up in between.
    """

    obs: Any
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Any
    boundary: Tensor
    weight: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    version: int = -1
    env_ids: Tensor | None = None
    index: Tensor | None = None
    state: Any = None
    length: int = 1
    continues: bool = True
    host_index: Tensor | None = None
    burn_in: int = 0

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply ``function`` to every tensor that has one entry per transition."""
        changed = {
            item.name: map_tree(function, getattr(self, item.name))
            for item in fields(self)
            if item.name not in _OF_THE_WHOLE
        }
        return replace(self, **changed)

    def tensors(self) -> list[Tensor]:
        """All tensors but ``env_ids``, in an order of their own; see `rebuilt`."""
        found = []
        for tree in _trees(self):
            if tree is None:
                continue
            if isinstance(tree, dict):
                found += flat(tree)
            else:
                found.append(tree)
        return found

    def rebuilt(self, tensors: Sequence[Tensor]) -> Batch:
        """The same batch made of other `tensors`."""
        following = iter(tensors)
        return replace(
            self, **{name: refilled(getattr(self, name), following) for name in _TENSORS}
        )

    def clone(self) -> Batch:
        """A copy with tensors of its own."""
        return replace(self.map(torch.clone), state=map_tree(torch.clone, self.state))

    def __getitem__(self, index: Any) -> Batch:
        picked = self.map(lambda tensor: tensor[index])
        if self.host_index is not None:
            here = index.cpu() if isinstance(index, Tensor) else index
            picked.host_index = self.host_index[here]
        return picked

    def rows(self, index: Tensor) -> Batch:
        """The transitions with these numbers ``[B]``; pictures come 8 times faster than by `[]`."""
        return self._picked(0, index)

    def split(self, size: int) -> Iterator[Batch]:
        """Pieces of ``size`` rows, the last of them perhaps smaller; they are views."""
        if len(self) <= size:
            yield self
            return
        if len(self) > _PIECES * size:  # caches do not hold what many pieces are made of
            for part in self.split(_PIECES * size):
                yield from part.split(size)
            return
        pieces = [dict(vars(self)) for _ in range(-(-len(self) // size))]
        for name in _BY_ROW:
            tree = getattr(self, name)
            if tree is None:
                continue
            parts = map_tree(lambda tensor: tensor.split(size), tree)
            for number, piece in enumerate(pieces):
                piece[name] = map_tree(lambda found: found[number], parts)  # noqa: B023
        for piece in pieces:
            batch = object.__new__(Batch)
            batch.__dict__.update(piece)
            yield batch

    def __len__(self) -> int:
        return int(self.reward.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``; to an accelerator all of it goes in one copy.

        ``env_ids`` and ``host_index`` are for the CPU and stay there. Where the batch is there
        already, this costs nothing.
        """
        device = torch.device(device)
        if self.reward.device == device:
            return self
        if is_accelerator(device):
            there = self.rebuilt(upload(self.tensors(), device))
            return replace(there, host_index=self.place_in_memory)
        moved = self.rebuilt([tensor.to(device) for tensor in self.tensors()])
        return replace(moved, host_index=None)

    @property
    def place_in_memory(self) -> Tensor | None:
        """``index`` on the CPU, where memories file what they learn about rows."""
        return self.index if self.host_index is None else self.host_index

    def flatten(self) -> Batch:
        """Merge time and environment: ``[T, N, ...]`` becomes ``[T * N, ...]``."""
        return replace(self.map(lambda tensor: tensor.flatten(0, 1)), length=len(self))

    def unflatten(self) -> Batch:
        """The inverse of `flatten`."""
        columns = self.steps // self.length
        split = self.map(lambda t: t.reshape(self.length, columns, *t.shape[1:]))
        return replace(split, length=1)

    def columns(self, index: Tensor) -> Batch:
        """Some of the environments of a fragment ``[T, N]``, from their first step to the last."""
        ids = None if self.env_ids is None else self.env_ids[index]
        (there,) = upload([index], self.reward.device)
        state = map_tree(lambda tensor: tensor[there], self.state)
        return replace(self._picked(1, there), state=state, env_ids=ids)

    @staticmethod
    def join(parts: Sequence[Batch], dim: int) -> Batch:
        """Put fragments ``[T, N]`` behind (``dim`` 0) or beside (1) each other."""
        first = parts[0]
        if len(parts) == 1:
            return first

        def joined(name: str, along: int) -> Any:
            trees = [getattr(part, name) for part in parts]
            return map_tree(lambda *tensors: torch.cat(tensors, along), *trees)

        names = [item.name for item in fields(first) if item.name not in _OF_THE_WHOLE]
        changed = {name: joined(name, dim) for name in names}
        if dim == 1:
            changed |= {name: joined(name, 0) for name in ("state", "env_ids")}
        return replace(first, **changed, version=min(part.version for part in parts))

    @staticmethod
    def stack(batches: Sequence[Batch], dim: int = 0) -> Batch:
        """Stack equally shaped batches along a new dimension."""
        first = batches[0]
        changed = {
            item.name: map_tree(
                lambda *tensors: torch.stack(tensors, dim),
                *(getattr(batch, item.name) for batch in batches),
            )
            for item in fields(first)
            if item.name not in _OF_THE_WHOLE
        }
        return replace(first, **changed)

    def _picked(self, dim: int, index: Tensor) -> Batch:
        (there,) = upload([index], self.reward.device)
        picked = self.map(lambda tensor: tensor.index_select(dim, there))
        if self.host_index is not None:
            picked.host_index = self.host_index.index_select(dim, index.cpu())
        return picked

    @property
    def steps(self) -> int:
        """Number of transitions."""
        return self.reward.numel()
