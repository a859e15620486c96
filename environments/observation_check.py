"""Checks of observations, compiled from their space once.

Values of the declared type and shape take a short path; everything else is looked at in full.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
from coach.core.layout import observation_layout
from coach.core.spec import AnySpace
from coach.environments.checks import DROP, Misfit, as_array, cut, finite, not_finite, shown
from gymnasium import spaces
from numpy.typing import NDArray

# Numbers too large for float32 are found by `Floats.look`, which names their place.
warnings.filterwarnings(
    "ignore", "overflow encountered in cast", RuntimeWarning, re.escape(__name__)
)

_MOST_INTEGER = 2**63 - 1


@dataclass
class Bounds:
    """An observation outside the declared bounds of its space; allowed, and said once.

    Args:
        key: of the observation, such as ``observation['speed']``.
        text: key, value and bounds.
    """

    key: str
    text: str


class Leaf:
    """Checks one array of an observation; see `Floats`, `Integers` and `Choice`.

    Args:
        space: of the array.
        key: of the array in messages, such as ``observation['camera']``.
        lead: further dimensions in front, where many environments return one array.
    """

    def __init__(self, space: AnySpace, key: str, lead: tuple[int, ...] = ()) -> None:
        self.space, self.key = space, key
        self.shape = (*lead, *(space.shape or ()))
        self.size = int(np.prod(self.shape))
        self.declared = np.dtype(space.dtype)
        self.dtype = self.declared  # of values that need no further look

    def store(self, target: NDArray[Any], index: Any, value: Any) -> None:
        """``target[index] = value``, if that loses nothing.

        Raises:
            Misfit: it would.
        """
        if (
            value.__class__ is np.ndarray
            and value.dtype is self.dtype
            and value.shape == self.shape
        ):
            target[index] = value
        else:
            with np.errstate(over="ignore"):  # found out later, with its place
                target[index] = self.converted(value)

    def converted(self, value: Any) -> NDArray[Any]:
        """A value that is not what was expected, as an array of the shape of the space."""
        array = as_array(value)
        if array is None or array.dtype.kind not in "fiub":
            kind = type(value).__name__ if array is None or array.ndim == 0 else array.dtype
            raise self.misfit(
                f"{shown(value)} ({kind}), which is not made of numbers",
                "Return numbers only.",
                value is None,
            )
        if array.shape != self.shape:
            if array.size != 1 or self.size != 1:
                raise self.misfit(
                    f"of shape {array.shape} instead of {self.shape}: {shown(value)}",
                    f"Return an array of shape {self.shape}, or declare the shape that it has.",
                )
            array = array.reshape(self.shape)
        return self._fitting(array, value)

    def _fitting(self, array: NDArray[Any], value: Any) -> NDArray[Any]:
        """An array of the right shape in the type that is stored, if nothing is lost by that."""
        self.dtype = array.dtype
        return array

    def watch(self, target: NDArray[Any]) -> Callable[[], bool] | None:
        """A quick check whether all that is stored in an array can be used.

        ``None`` where `store` has checked all there is.
        """
        return None

    def look(self, row: NDArray[Any], value: Any) -> None:
        """Find what is wrong with a stored row; ``value`` is what the environment returned.

        Raises:
            Misfit: something is.
        """

    def outside(self, rows: NDArray[Any]) -> Bounds | None:
        """What to say if some of the stored rows are outside the bounds of the space."""
        return None

    def misfit(self, problem: str, remedy: str, passing: bool = False) -> Misfit:
        """An error that names the key and the space."""
        space = cut(str(self.space))
        if passing:
            remedy = DROP
        return Misfit(f"{self.key} is {problem}; its space is {space}", remedy, passing)


class Floats(Leaf):
    """Checks an array of floating-point numbers; stored as float32."""

    def watch(self, target: NDArray[Any]) -> Callable[[], bool] | None:
        return finite(target)

    def look(self, row: NDArray[Any], value: Any) -> None:
        fine = np.isfinite(row)
        if not fine.all():
            index = tuple(np.argwhere(~fine)[0].tolist())
            array = as_array(value)
            given = row if array is None or array.size != row.size else array.reshape(row.shape)
            number = float(given[index])
            place = f" at index {list(index)}" if index else ""
            raise self.misfit(f"{number}{place}, {not_finite(number)}", DROP, passing=True)

    def outside(self, rows: NDArray[Any]) -> Bounds | None:
        space = self.space
        assert isinstance(space, spaces.Box)
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return _bounds(self.key, rows, low, high)


class Integers(Leaf):
    """Checks an array of whole numbers (or bools) of a Box, MultiDiscrete or MultiBinary."""

    def __init__(self, space: AnySpace, key: str, lead: tuple[int, ...] = ()) -> None:
        super().__init__(space, key, lead)
        if self.declared.kind == "b":
            self._least, self._most = 0, 1
        else:
            limits = np.iinfo(self.declared)
            self._least, self._most = int(limits.min), min(int(limits.max), _MOST_INTEGER)
        if self.declared == np.uint64:  # stored as int64
            self.dtype = np.dtype(np.int64)

    def _fitting(self, array: NDArray[Any], value: Any) -> NDArray[Any]:
        if array.dtype.kind == "f":
            wrong = array[~(array == np.floor(array)) | ~np.isfinite(array)]
            if wrong.size:
                number = float(wrong[0])
                raise self.misfit(
                    f"not whole: {number} in {shown(value)}, and its type is {self.declared}",
                    "Return whole numbers, or declare a space of floats: "
                    "Box(low, high, shape, numpy.float32).",
                    passing=not np.isfinite(number),
                )
        elif array.dtype != np.uint64 and np.can_cast(array.dtype, self.declared, "safe"):
            self.dtype = array.dtype
            return array
        if array.size and not self._least <= array.min() <= array.max() <= self._most:
            number = array.min() if array.min() < self._least else array.max()
            raise self.misfit(
                f"out of range: {number} in {shown(value)}, and {self.declared} holds "
                f"{self._least} to {self._most}",
                "Return numbers that the space's type can hold, or declare another type.",
            )
        return array.astype(self.declared)

    def watch(self, target: NDArray[Any]) -> Callable[[], bool] | None:
        space = self.space
        if isinstance(space, spaces.MultiBinary):
            return lambda: not target.tobytes().translate(None, b"\0\1")
        if isinstance(space, spaces.MultiDiscrete):
            start, count = space.start, space.nvec
            return lambda: bool(((target >= start) & (target < start + count)).all())
        return None

    def look(self, row: NDArray[Any], value: Any) -> None:
        space = self.space
        if isinstance(space, spaces.Box):
            return
        start: Any = space.start if isinstance(space, spaces.MultiDiscrete) else 0
        count: Any = space.nvec if isinstance(space, spaces.MultiDiscrete) else 2
        if ((row < start) | (row >= start + count)).any():
            raise self.misfit(f"outside of it: {shown(row)}", "Return a value of the space.", True)

    def outside(self, rows: NDArray[Any]) -> Bounds | None:
        space = self.space
        if not isinstance(space, spaces.Box):
            return None
        if (space.low == self._least).all() and (space.high == self._most).all():
            return None  # a look at every picture would find nothing
        return _bounds(self.key, rows, space.low, space.high)


class Choice(Leaf):
    """Checks one of ``n`` possibilities (Discrete)."""

    def __init__(self, space: spaces.Discrete, key: str, lead: tuple[int, ...] = ()) -> None:
        super().__init__(space, key, lead)
        self._least, self._end = int(space.start), int(space.start + space.n)
        self._single = not lead

    def store(self, target: NDArray[Any], index: Any, value: Any) -> None:
        kind = value.__class__
        if (kind is int or kind is np.int64) and self._single and self._least <= value < self._end:
            target[index] = value
        else:
            target[index] = self.converted(value)

    def _fitting(self, array: NDArray[Any], value: Any) -> NDArray[Any]:
        for number in array.reshape(-1).tolist():
            if not float(number).is_integer():
                raise self.misfit(f"{number}, not a whole number", "Return an int.", True)
            if not self._least <= number < self._end:
                raise self.misfit(
                    f"{int(number)}, and the possibilities are {self._least} to {self._end - 1}",
                    "Return a value of the space, or declare a space that holds it.",
                    True,
                )
        return array.astype(np.int64)


def _bounds(key: str, rows: NDArray[Any], low: Any, high: Any) -> Bounds | None:
    wrong = np.argwhere((rows < low) | (rows > high))
    if not len(wrong):
        return None
    index = tuple(wrong[0].tolist())
    shape = rows.shape
    bounds = [np.broadcast_to(bound, shape)[index] for bound in (low, high)]
    place = f" at index {list(index[1:])}" if len(index) > 1 else ""
    return Bounds(
        key,
        f"{key} is {rows[index]}{place}, outside the bounds {bounds[0]} to {bounds[1]} of its "
        "space. Such values are used as they are; this is said once.",
    )


class Entries:
    """Checks the entries of a Dict, one by one.

    Args:
        space: the Dict.
        key: of it in messages.
        lead: further dimensions in front of every array.
    """

    def __init__(self, space: spaces.Dict, key: str, lead: tuple[int, ...] = ()) -> None:
        self.space, self.key = space, key
        self.parts = {
            name: _compiled(inner, f"{key}[{name!r}]", lead) for name, inner in space.items()
        }

    def store(self, target: Any, index: Any, value: Any) -> None:
        """Store every entry in the array of its name.

        Raises:
            Misfit: an entry does not fit, is missing or is not in the space.
        """
        if not isinstance(value, Mapping):
            self._refuse(f"{shown(value)}, not a dict", "Return a dict of all keys.")
        if len(value) != len(self.parts) and (more := set(value) - set(self.parts)):
            self._refuse(
                f"a dict with keys that its space does not have: {_listed(more)}",
                "Add them to the observation space, or leave them out.",
            )
        for name, part in self.parts.items():
            if name not in value:
                self._refuse(
                    f"without the key {name!r}; it has {_listed(value)}",
                    "Return all keys at every step, or leave the key out of the space.",
                )
            part.store(target[name], index, value[name])

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise Misfit(f"{self.key} is {problem}; its space is {cut(str(self.space))}", remedy)


Node: TypeAlias = Leaf | Entries


class ObservationCheck:
    """Stores observations of a space in arrays, if that loses nothing.

    Args:
        space: of one observation.
        lead: further dimensions in front of every array, where many environments return one.

    Raises:
        SettingError: the space cannot be stored as arrays.
    """

    def __init__(self, space: AnySpace, lead: tuple[int, ...] = ()) -> None:
        observation_layout(space)  # refuses what cannot be stored
        self._root = _compiled(space, "observation", lead)
        #: Store one observation: ``store(target, index, value)``; raises `Misfit`.
        self.store: Callable[[Any, Any, Any], None] = self._root.store
        self._said: set[str] = set()  # keys about whose bounds something was said

    def rows(self, target: Any) -> list[memoryview | None]:
        """Rows of an array ``[N, size]`` that take what needs no further look, the fastest way.

        Assigning to one raises TypeError or ValueError for all but arrays of its type and shape;
        then `store` is to be asked. ``None`` for observations of another form.
        """
        root = self._root
        if isinstance(root, Leaf) and len(root.shape) == 1 and target.dtype == root.declared:
            return [memoryview(row) for row in target]
        return [None] * len(next(_leaves(root, target))[1])

    def watch(self, target: Any) -> Callable[[], bool]:
        """A quick check of arrays ``[N, ...]`` that observations have been stored in.

        It finds what `store` does not look for: numbers that are not finite, and values outside
        of MultiDiscrete and MultiBinary spaces.
        """
        found = [leaf.watch(array) for leaf, array in _leaves(self._root, target)]
        checks: list[Callable[[], bool]] = [check for check in found if check is not None]
        if len(checks) == 1:
            return checks[0]
        return lambda: all(check() for check in checks)

    def look(self, target: Any, i: int, value: Any) -> None:
        """Find what is wrong with row ``i``, in which ``value`` was stored.

        Raises:
            Misfit: something is.
        """
        for leaf, array, given in _leaves(self._root, target, value):
            leaf.look(array[i], given)

    def outside(self, target: Any) -> list[Bounds]:
        """What is to be said about stored rows outside their bounds; once for every key."""
        found = [
            leaf.outside(array)
            for leaf, array in _leaves(self._root, target)
            if leaf.key not in self._said
        ]
        new = [bounds for bounds in found if bounds is not None]
        self._said |= {bounds.key for bounds in new}
        return new


def _compiled(space: AnySpace, key: str, lead: tuple[int, ...]) -> Node:
    match space:
        case spaces.Dict():
            return Entries(space, key, lead)
        case spaces.Discrete():
            return Choice(space, key, lead)
        case spaces.Box() if np.dtype(space.dtype).kind == "f":
            return Floats(space, key, lead)
    return Integers(space, key, lead)


def _leaves(node: Node, *trees: Any) -> Iterator[tuple[Any, ...]]:
    """Every leaf, with its part of each tree."""
    if isinstance(node, Entries):
        for name, part in node.parts.items():
            yield from _leaves(part, *(tree[name] for tree in trees))
    else:
        yield (node, *trees)


def _listed(keys: Any) -> str:
    return ", ".join(repr(key) for key in keys) or "none"
