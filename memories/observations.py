"""Where the observations of a ring lie: each once, and of stacked pictures only the newest."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from coach.core.batch import leaves, map_tree, rebuild
from coach.core.layout import Zeros, untouched_zeros
from coach.memories.finals import Finals
from numpy.typing import NDArray

_NEVER = 255  # the depth of a row that nothing has been written to
_MOST = 16  # pictures of a stack
#: Parts of what is saved of stacks, behind the path of their leaf.
_PARTS = ("#newest", "#begins", "#older")


class Rows(Protocol):
    """Observations, or one key of them, in ``num_envs`` rings of ``rows`` rows."""

    nbytes: int
    #: Bytes that a row takes where it is `saved`, those of rare cases left out.
    saved_bytes: int

    def put(self, envs: slice, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write ``values`` ``[n, T, ...]`` to ``rows`` ``[T]``, which follow each other."""

    def take(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Copies ``[B, ...]`` of what was written to ``env * rows + row``."""

    def both(
        self,
        index: NDArray[np.int64],
        behind: NDArray[np.int64],
        ended: NDArray[np.intp],
        finals: NDArray[Any],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Observations at ``index`` and, to be read only, those behind ``[B]``.

        For the entries ``ended`` what comes behind is among ``finals`` instead.
        """

    def saved(self, index: NDArray[np.int64], first: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """What `unpacked` makes the observations at ``index`` ``[M]`` of.

        Where ``first`` ``[M]`` is false, an entry is the row behind the entry before it.
        """


class PlainRows:
    """Every observation whole."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        num_envs: int,
        rows: int,
        zeros: Zeros = untouched_zeros,
    ) -> None:
        self.rows = rows
        self.values = zeros((num_envs, rows, *shape), dtype).numpy()
        self.flat = self.values.reshape(num_envs * rows, *shape)
        self.nbytes = self.values.nbytes
        self.saved_bytes = self.nbytes // max(1, num_envs * rows)

    def put(self, envs: slice, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        begin = int(rows[0])
        split = min(len(rows), self.rows - begin)  # a ring: one or two straight copies
        self.values[envs, begin : begin + split] = values[:, :split]
        if split < len(rows):
            self.values[envs, : len(rows) - split] = values[:, split:]

    def take(self, index: NDArray[np.int64]) -> NDArray[Any]:
        return self.flat.take(index, 0)

    def both(
        self,
        index: NDArray[np.int64],
        behind: NDArray[np.int64],
        ended: NDArray[np.intp],
        finals: NDArray[Any],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        return _apart(self, index, behind, ended, finals)

    def saved(self, index: NDArray[np.int64], first: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        return {"": self.take(index)}


class StackedRows:
    """Stacks of pictures of which each is the one before, moved on by one picture.

    Of a stack only the newest picture is kept, and the older ones are found in the rows before it.
    Where a stack does not go on from the row before, as at the start of an episode, its older
    pictures are kept beside the ring. So what comes out is what went in, whatever that was.

    Args:
        shape: ``[K, height, width]``, oldest picture first.
        num_envs: number of rings.
        rows: of each; the oldest ``K - 1`` must not be asked for, their pictures may be gone.
        zeros: makes the memory for the pictures.
    """

    def __init__(
        self, shape: tuple[int, ...], num_envs: int, rows: int, zeros: Zeros = untouched_zeros
    ) -> None:
        self.rows, self.last, self._rings = rows, shape[0] - 1, num_envs
        size = num_envs * rows
        self.pictures = zeros((size, *shape[1:]), torch.uint8).numpy()
        #: Rows since the stack began that a row's pictures come from, at most ``K - 1``.
        self.depth = np.full(size, _NEVER, np.uint8)
        self.older = Finals(((self.last, *shape[1:]), torch.uint8), size)
        self.nbytes = self.pictures.nbytes + self.depth.nbytes + 4 * size
        self.saved_bytes = math.prod(shape[1:]) + 1
        self._ago = np.arange(self.last, -1, -1)
        self._ago_and_next = np.arange(self.last, -2, -1)

    def put(self, envs: slice, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        for env, stacks in zip(range(envs.start, envs.stop), values):
            self._put(env * self.rows, rows, stacks)

    def take(self, index: NDArray[np.int64]) -> NDArray[Any]:
        return self._take(self._places(index, self._ago))

    def both(
        self,
        index: NDArray[np.int64],
        behind: NDArray[np.int64],
        ended: NDArray[np.intp],
        finals: NDArray[Any],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        # All but one of the pictures are the same, so where stacks move on they share their memory.
        if self._rings == 1 and not len(ended):
            # As a rule all stacks are whole. `take` itself goes on at the beginning of a ring.
            places = index[:, None] - self._ago_and_next  # [B, K + 1]
            depths = self.depth.take(places[:, self.last :], mode="wrap")  # theirs, and behind
            if (depths == self.last).all() and (places[:, -1] == behind).all():
                together = self.pictures.take(places, 0, mode="wrap")
                return together[:, :-1], together[:, 1:]
        places = self._places(index, self._ago_and_next)
        moved_on = self.depth.take(behind) > 0
        moved_on &= places[:, -1] == behind
        if len(ended):
            moved_on[ended] = places[ended, -1] == behind[ended]
        if moved_on.all():
            together = self._take(places)
            after = together[:, 1:]
            if not len(ended):
                return together[:, :-1], after
            if np.array_equal(after[ended, :-1], finals[:, :-1]):
                after[ended, -1] = finals[:, -1]
                return together[:, :-1], after
        return _apart(self, index, behind, ended, finals)

    def saved(self, index: NDArray[np.int64], first: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        begins = first | (self.depth.take(index) == 0)
        older = self.take(index[begins])[:, :-1]
        return dict(zip(_PARTS, (self.pictures.take(index, 0), begins, older)))

    def _places(self, index: NDArray[np.int64], ago: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the pictures of stacks lie that are as old as ``ago`` says, ``[B, len(ago)]``."""
        row = index % self.rows
        return (index - row)[:, None] + (row[:, None] - ago) % self.rows

    def _take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Pictures of stacks, and maybe of what comes behind, given where they would lie."""
        stacks = self.pictures.take(places, 0)
        depth = self.depth.take(places[:, self.last])
        shallow = (depth < self.last).nonzero()[0]
        if len(shallow):
            begins = places[shallow, self.last - depth[shallow]]
            older = self.older.of(begins)
            for number, pictures in zip(shallow.tolist(), older):
                since = int(depth[number])
                stacks[number, : self.last - since] = pictures[since:]
        return stacks

    def _put(self, base: int, rows: NDArray[np.int64], stacks: NDArray[Any]) -> None:
        index = base + rows
        previous = base + (int(rows[0]) - 1) % self.rows
        depth = int(self.depth[previous])
        before = None if depth == _NEVER else self.take(np.array([previous]))[0]
        depths = []
        for stack in stacks:
            goes_on = before is not None and np.array_equal(stack[:-1], before[1:])
            depth = min(depth + 1, self.last) if goes_on else 0
            depths.append(depth)
            before = stack
        self.older.drop(index)
        found = np.array(depths, np.uint8)
        begins = found == 0
        if begins.any():
            self.older.keep(index[begins], stacks[begins, :-1])
        self.pictures[index] = stacks[:, -1]
        self.depth[index] = found


def unpacked(parts: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Observations ``[M, ...]`` from what `Rows.saved` made of them."""
    if "" in parts:
        return parts[""]
    newest, begins, older = (parts[part] for part in _PARTS)
    entries = np.arange(len(newest))
    since = entries - np.maximum.accumulate(np.where(begins, entries, 0))  # its stack began
    stack, last = begins.cumsum() - 1, older.shape[1]
    stacks = np.empty((len(newest), last + 1, *newest.shape[1:]), np.uint8)
    stacks[:, last] = newest
    for place in range(last):
        ago = last - place
        within = since >= ago
        stacks[within, place] = newest[entries[within] - ago]
        stacks[~within, place] = older[stack[~within], place + since[~within]]
    return stacks


def _apart(
    rows: Rows,
    index: NDArray[np.int64],
    behind: NDArray[np.int64],
    ended: NDArray[np.intp],
    finals: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    after = rows.take(behind)
    if len(ended):
        after[ended] = finals
    return rows.take(index), after


def could_be_stack(layout: Any) -> bool:
    """Whether a leaf of an observation layout has the form of stacked pictures."""
    shape, dtype = layout
    return dtype == torch.uint8 and len(shape) == 3 and 2 <= shape[0] <= min(_MOST, *shape[1:])


def margin_of(layout: Any) -> int:
    """Rows beyond those held that stacks need, if any of the leaves should be one."""
    if isinstance(layout, dict):
        return max((margin_of(inner) for inner in layout.values()), default=0)
    return layout[0][0] - 1 if could_be_stack(layout) else 0


def expected_bytes(layout: Any) -> int:
    """Bytes of an observation in a ring; three channels are taken for colours, more for a stack."""
    if isinstance(layout, dict):
        return sum(expected_bytes(inner) for inner in layout.values())
    shape, dtype = layout
    if could_be_stack(layout) and shape[0] > 3:
        picture: int = math.prod(shape[1:])
        return picture + 5  # how deep the stack is, and where its older pictures are
    size: int = math.prod(shape) * dtype.itemsize
    return size


def ring_for(
    layout: Any,
    num_envs: int,
    rows: int,
    before: Any,
    after: Any,
    zeros: Zeros = untouched_zeros,
) -> Any:
    """A tree of `Rows`, chosen by what observations ``[M, ...]`` were followed by.

    ``zeros`` makes the memory that the observations lie in.
    """
    if isinstance(layout, dict):
        return {
            key: ring_for(inner, num_envs, rows, before[key], after[key], zeros)
            for key, inner in layout.items()
        }
    shape, dtype = layout
    if could_be_stack(layout) and len(before):
        moved_on = [np.array_equal(b[1:], a[:-1]) for b, a in zip(before[:_MOST], after)]
        if 2 * sum(moved_on) >= len(moved_on):
            return StackedRows(shape, num_envs, rows, zeros)
    return PlainRows(shape, dtype, num_envs, rows, zeros)


def put(ring: Any, envs: slice, rows: NDArray[np.int64], values: Any) -> None:
    """`Rows.put`, leaf by leaf."""
    map_tree(lambda leaf, value: leaf.put(envs, rows, value), ring, values)


def saved(ring: Any, index: NDArray[np.int64], first: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """`Rows.saved` of all leaves, by path and part."""
    return {
        path + part: values
        for path, leaf in leaves(ring)
        for part, values in leaf.saved(index, first).items()
    }


def restored(layout: Any, named: dict[str, NDArray[Any]]) -> Any:
    """The observations that `saved` was given, as a tree like ``layout``."""
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for name, values in named.items():
        part = next((part for part in _PARTS if name.endswith(part)), "")
        path = name.removesuffix(part)
        parts.setdefault(path, {})[part] = values
    return rebuild(layout, {path: unpacked(found) for path, found in parts.items()})


def saved_bytes(ring: Any) -> int:
    """`Rows.saved_bytes` of all leaves."""
    return sum(leaf.saved_bytes for _, leaf in leaves(ring))


def take(ring: Any, index: NDArray[np.int64]) -> Any:
    """`Rows.take`, leaf by leaf."""
    return map_tree(lambda leaf: leaf.take(index), ring)


def both(
    ring: Any,
    index: NDArray[np.int64],
    behind: NDArray[np.int64],
    ended: NDArray[np.intp],
    finals: Any,
) -> tuple[Any, Any]:
    """`Rows.both`, leaf by leaf."""
    if not isinstance(ring, dict):
        pair: tuple[Any, Any] = ring.both(index, behind, ended, finals)
        return pair
    pairs = {key: both(leaf, index, behind, ended, finals[key]) for key, leaf in ring.items()}
    return {key: one for key, (one, _) in pairs.items()}, {k: two for k, (_, two) in pairs.items()}
