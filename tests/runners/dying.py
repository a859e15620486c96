"""A process that is killed at its n-th call of the file system, as seen by the files it leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

CALLS = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "ftruncate", "pwrite")


class KilledError(BaseException):
    """Stands for the end of the process: nothing that catches errors must catch it."""


def killed_everywhere(
    act: Callable[[], None], prepare: Callable[[], None], patch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Let ``act`` be killed before its first call of the file system, its second, and so on.

    Yields:
        The number of calls that were made, each time before the files are prepared anew; the last
        time ``act`` has come to its end.
    """
    calls = {"made": 0, "limit": 0}

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if calls["made"] >= calls["limit"]:  # and so does whatever would clean up afterwards
                raise KilledError
            calls["made"] += 1
            return real(*args, **kwargs)

        return call

    ended = False
    while not ended:
        prepare()
        calls["made"] = 0
        with patch.context() as context:
            for name in CALLS:
                context.setattr(os, name, counted(getattr(os, name)))
            context.setattr(Path, "open", counted(Path.open))
            with suppress(KilledError):
                act()
                ended = True
        yield calls["limit"]
        calls["limit"] += 1
