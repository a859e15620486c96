"""Errors meant for a person: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CoachError(Exception):
    """A mistake or mishap that the user can act on; the command line shows no traceback for it.

    Args:
        problem: what is wrong, in one sentence.
        remedy: what to do about it.
    """

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


class ResourceError(CoachError):
    """The machine cannot give what the run needs (memory, disk, a writable directory)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence that helps after a misspelling: the nearest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names)}." if names else ""
