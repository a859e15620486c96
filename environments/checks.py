"""Checks of what environments return, before anything of it is stored or learned from.

The rule is that no information may be lost. A list of numbers for a vector, a 0-dimensional array
or one of a single number for a number, float64 for float32, whole numbers of another type that fit:
all of these are accepted. What would be broadcast, rounded to a whole number, wrapped around, cut
off or parsed from text is refused, and so are NaN and infinite numbers.

Observations are checked by `coach.environments.observation_check`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import numpy as np
from coach.core.errors import TOO_FAST, BadValueError, NotFiniteError
from numpy.typing import NDArray

#: The largest number that float32, in which rewards and observations are stored, can hold.
LARGEST = float(np.finfo(np.float32).max)
#: Types of rewards that need no conversion; a precise type would narrow rewards to object.
NUMBERS: Any = frozenset({float, int, bool, np.float64, np.float32, np.int64, np.int32, np.bool_})
_LONGEST = 120  # characters of a value or a space in a message
_FEW = 32  # numbers that are added up sooner in Python
_BLOCK = 8_192  # numbers per product; OpenBLAS would start threads for more than 10,000
#: The remedy for values that another episode may be free of.
DROP = (
    "Mend the environment; or set environment.on_bad_value: drop_episode to leave such episodes "
    "out, see docs/environments.md."
)
_FIVE = (
    "Return observation, reward, terminated, truncated and info from step(); truncated says that a "
    "time limit ended the episode."
)
_TWO = "Return (observation, info) from reset(), where info is a dict."


class Misfit(Exception):  # noqa: N818 - it is always turned into a BadValueError
    """A returned value that cannot be used; says what is wrong, not where it came from.

    Args:
        problem: what is wrong, in a sentence without its full stop.
        remedy: what to do about it.
        passing: whether another episode may well be free of it.
        row: of the environment, where many return their values together.
    """

    def __init__(self, problem: str, remedy: str, passing: bool = False, row: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.passing, self.row = problem, remedy, passing, row

    def at(
        self,
        name: str,
        call: str,
        env_id: int,
        episode: int,
        step: int,
        action: NDArray[Any] | None = None,
    ) -> BadValueError | NotFiniteError:
        """The error to raise for it.

        Args:
            name: of the environment.
            call: "step" or "reset".
            env_id: global id of the environment.
            episode: number of its episode, from 0.
            step: number of the step in the episode, from 1; 0 at the reset.
            action: that led to it; if this is not finite, the agent is to blame.
        """
        where = f"environment {env_id}, episode {episode}, step {step}"
        problem = f"{name} returned a bad value in {call}() ({where}): {self.problem}."
        if action is not None and not np.isfinite(action).all():
            return NotFiniteError(f"The agent chose {shown(action)}. After it, {problem}", TOO_FAST)
        return BadValueError(problem, self.remedy)


def as_reset(value: Any) -> Any:
    """The observation out of what ``reset`` returned.

    Raises:
        Misfit: it is no pair of an observation and a dict (or None).
    """
    if value.__class__ is tuple and len(value) == 2 and value[1].__class__ is dict:
        return value[0]
    pair = isinstance(value, tuple | list) and len(value) == 2
    if pair and (value[1] is None or isinstance(value[1], Mapping)):
        return value[0]
    if pair:
        raise Misfit(f"the info beside the observation is {shown(value[1])}, not a dict", _TWO)
    raise Misfit(f"{shown(value)} is not a pair of observation and info", _TWO)


def as_outcome(value: Any) -> Any:
    """What ``step`` returned, as five values.

    Raises:
        Misfit: there are fewer or more.
    """
    if isinstance(value, tuple | list) and len(value) == 5:
        return value
    if isinstance(value, tuple | list):
        raise Misfit(f"it returned {len(value)} values, {shown(value)}, not five", _FIVE)
    raise Misfit(f"it returned {shown(value)}, not five values", _FIVE)


def as_misfit(error: Exception, outcome: Any) -> Misfit:
    """What is wrong with the outcome of a step that could not be used.

    Raises:
        Exception: the error itself, if that is not the outcome's fault.
    """
    if isinstance(error, Misfit):
        return error
    try:
        as_outcome(outcome)
    except Misfit as misfit:
        return misfit
    raise error


def as_reward(value: Any, row: int = 0) -> float:
    """A reward as a number; arrays and tensors of a single number are accepted.

    Args:
        value: what was returned.
        row: of the environment, where many return their rewards together.

    Raises:
        Misfit: it is no number, not finite, or too large for float32.
    """
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:  # arrays hold no such ints
        raise Misfit(f"the reward is {shown(value)}, {not_finite(0.0)}", DROP, True, row)
    array = as_array(value)
    if array is None or array.dtype.kind not in "fiub":
        why = f"the reward is {shown(value)}, which is not a number"
        raise Misfit(why, DROP if value is None else "Return a number.", value is None)
    if array.size != 1:
        why = f"the reward is {shown(value)}, {array.size} numbers instead of one"
        raise Misfit(why, "Return a number, for instance the sum.")
    reward = float(array.reshape(()))
    if -LARGEST <= reward <= LARGEST:
        return reward
    raise Misfit(f"the reward is {shown(value)}, {not_finite(reward)}", DROP, True, row)


def as_flag(name: str, value: Any, row: int = 0) -> bool:
    """``terminated`` or ``truncated`` as a bool; 0 and 1 are accepted, also in arrays of size 1.

    Args:
        name: which of the two.
        value: what was returned.
        row: of the environment, where many return their flags together.

    Raises:
        Misfit: it is neither true nor false.
    """
    if value.__class__ is bool or value.__class__ is np.bool_:
        return bool(value)
    array = as_array(value)
    if array is not None and array.size == 1 and array.dtype.kind in "fiub":
        flag = array.reshape(())[()]
        if flag in (0, 1):
            return bool(flag)
    problem = f"{name} is {shown(value)}, neither True nor False"
    raise Misfit(problem, f"Return a bool as {name}.", row=row)


def store_flags(name: str, target: NDArray[np.bool_], given: Any) -> None:
    """Store what many environments return as ``terminated`` or ``truncated``.

    Raises:
        Misfit: some of it is neither true nor false.
    """
    if given.__class__ is np.ndarray and given.dtype == bool and given.shape == target.shape:
        target[:] = given
        return
    for row, value in enumerate(_rows(name, given, len(target))):
        target[row] = as_flag(name, value, row)


def store_rewards(target: NDArray[np.float32], given: Any) -> None:
    """Store the rewards of many environments; finite or not, see `finite`.

    Raises:
        Misfit: some of them are no numbers.
    """
    array = given.__class__ is np.ndarray and given.shape == target.shape
    if array and given.dtype.kind in "fiub":
        target[:] = given
        return
    for row, value in enumerate(_rows("the reward", given, len(target))):
        target[row] = as_reward(value, row)


def finite(target: NDArray[Any]) -> Callable[[], bool]:
    """A quick check whether all numbers in an array are finite."""
    flat: Any = target.reshape(-1)
    if flat.size <= _FEW and flat.dtype == np.float32:  # so few cannot add up to infinity
        numbers = memoryview(flat)
        return lambda: isfinite(sum(numbers))
    # A product with zeros is 0 unless a number is NaN or infinite, and takes a third of the time
    # of isfinite. Unlike dot, vdot gives no warning where it is not.
    zeros, vdot = np.zeros(min(_BLOCK, flat.size), flat.dtype), np.vdot
    if flat.size <= _BLOCK:
        return lambda: bool(vdot(flat, zeros) == 0.0)
    blocks = [flat[begin : begin + _BLOCK] for begin in range(0, flat.size, _BLOCK)]
    return lambda: all(vdot(block, zeros[: block.size]) == 0.0 for block in blocks)


def explained(env: Any, call: str, error: BaseException) -> Misfit | None:
    """What is wrong where an exception comes from the form of ``reset`` or ``step`` alone.

    An argument that ``reset`` does not take, or a Gymnasium wrapper that could not unpack what the
    environment returned.
    """
    text, trace = str(error), error.__traceback__
    if call == "reset" and isinstance(error, TypeError):
        takes = inspect.signature(env.unwrapped.reset).parameters.values()
        named = {parameter.name for parameter in takes}
        for name in ("seed", "options"):
            if f"'{name}'" in text and name not in named:
                return Misfit(
                    f"it takes no argument '{name}'",
                    "Define it as reset(self, *, seed=None, options=None), and call "
                    "super().reset(seed=seed).",
                )
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    inside = trace is not None and "gymnasium" in trace.tb_frame.f_globals.get("__name__", "")
    if inside and "unpack" in text and isinstance(error, ValueError | TypeError):
        expected = f"a wrapper could not take what it returned apart ({text})"
        return Misfit(expected, _FIVE if call == "step" else _TWO)
    return None


def shown(value: Any) -> str:
    """A value in a message: its digits, and its type where that is not plain."""
    if isinstance(value, np.ndarray):
        digits = np.array2string(value, threshold=8, separator=", ").replace("\n", "")
        return f"array({cut(digits)}, shape {value.shape}, {value.dtype})"
    if isinstance(value, np.generic):
        return str(value)
    return cut(repr(value).replace("\n", " "))


def cut(text: str) -> str:
    """A text short enough for a message."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _rows(name: str, given: Any, count: int) -> Any:
    array = as_array(given)
    if array is None or array.shape != (count,):
        raise Misfit(f"{name} is {shown(given)}, not one for each of {count} environments", _FIVE)
    return array


def as_array(value: Any) -> NDArray[Any] | None:
    """A value as an array; ``None`` if it cannot be one."""
    if hasattr(value, "detach"):  # a torch tensor, wherever it is and whatever it came from
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        return None


def not_finite(number: float) -> str:
    """Why a number cannot be stored."""
    if np.isfinite(number):
        return "which is too large for float32"
    return "which is not finite"
