"""Errors meant for a person: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class CoachError(Exception):
    """A mistake or mishap that the user can act on; the command line shows no traceback for it.

    Args:
        problem: what is wrong, in one sentence.
        remedy: what to do about it.
    """

    #: Exit status of the command line; docs/environments.md lists them.
    exit_status: ClassVar[int] = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}\n{remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class SettingError(CoachError):
    """A setting that cannot be used; names the key path, e.g. ``agent.exploration.epsilon``."""

    def __init__(self, key: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{key}: {problem}" if key else problem, remedy)
        self.key, self.text = key, problem

    def within(self, file: str) -> SettingError:
        """The same error, naming the file that the setting stands in."""
        error = SettingError("", f"{file}: {self.problem}", self.remedy)
        error.key = self.key
        return error

    def under(self, path: str) -> SettingError:
        """The same error, its key as it stands in a preset, where ``path`` leads to it."""
        return SettingError(f"{path}.{self.key}", self.text, self.remedy) if path else self


class CheckpointError(CoachError):
    """A checkpoint that is missing, damaged or written by a newer version."""


class BadValueError(CoachError):
    """An environment returned a value that cannot be learned from; names where and what.

    It ends a run in every mode, with a checkpoint of what was learned before.
    """

    exit_status = 5


#: The remedy for numbers of the agent that grew beyond all bounds.
TOO_FAST = (
    "Lower optimizer.lr, or limit gradients with optimizer.max_grad_norm; checkpoints and the best "
    "policy written before are kept."
)


class NotFiniteError(CoachError):
    """A loss, gradient, weight or action of the agent itself became NaN or infinite.

    It ends a run in every mode; checkpoints written before stay as they are.
    """

    exit_status = 6


class ResourceError(CoachError):
    """The machine cannot give what the run needs (memory, disk, a writable directory)."""


class FailedEnvironmentError(CoachError):
    """An environment raised, tried to end the process, or returned what it must not.

    It ends a run in mode single with a checkpoint, and is a failure of the worker elsewhere.
    """

    exit_status = 3


class InterruptedRunError(BaseException):
    """The run is to end while it waits for something that may never come.

    No subclass of `Exception`, so that code of environments does not catch it by mistake.

    Args:
        number: of the signal that ends it, if it was one.
    """

    def __init__(self, number: int = 0) -> None:
        super().__init__(number)
        self.number = number


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The sentence that helps after a misspelling: the nearest known name, or all of them.

    Upper and lower case, hyphens and underscores do not matter.

    Args:
        name: as it was written.
        known: names that there are.
        cutoff: least similarity of a near name, from 0 to 1.
    """
    names = sorted(known)
    close = near_name(name, names, cutoff)
    if close is not None:
        return f"Did you mean '{close}'?"
    return f"Known: {', '.join(names)}." if names else ""


def near_name(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name that is most like ``name``, if any is."""
    names = list(known)
    if name in names:
        return name
    folded = {_fold(candidate): candidate for candidate in names}
    close = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def _fold(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")
