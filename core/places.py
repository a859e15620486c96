"""Paths as a person reads them: short where they lie in the folder of the command.

A run keeps absolute paths, since an environment may change the working directory. What is printed
is relative to the folder in which the command was typed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_typed_in: list[Path] = []


@contextmanager
def typed_here() -> Iterator[None]:
    """Let `short` refer to the folder that is the current one now, whatever changes it later."""
    _typed_in.append(Path.cwd())
    try:
        yield
    finally:
        _typed_in.pop()


def short(path: Path) -> str:
    """A path relative to the folder of the command, if it lies in there; or else as it is.

    Outside of `typed_here` that folder is the current one.
    """
    here = _typed_in[-1] if _typed_in else Path.cwd()
    if not path.is_relative_to(here):
        return str(path)
    text = str(path.relative_to(here))
    return f"./{text}" if text.startswith("-") else text  # or it would be read as an option
