"""`coach` in processes of its own, forked from one that has imported everything already.

A new interpreter imports torch first, which takes seconds. These processes are as new, and ready.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 600.0  # generous: nothing here is about speed


class Forked:
    """A process that calls a function, in a session of its own.

    Args:
        target: what it calls; pickled, and so are its arguments.
        args: its arguments.
        output: file that takes what the process prints; without one nobody reads it.
    """

    def __init__(self, target: Callable[..., Any], *args: Any, output: Path | None = None) -> None:
        self.output = output
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["coach.runners.worker", "coach.runners.experiment"])
        self._process = context.Process(
            target=_call, args=(target, args, str(output or os.devnull))
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        return self._process.exitcode

    def wait(self) -> int:
        """Its exit status, once it has ended; that of a signal is negative."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode

    def printed(self) -> str:
        """What it has printed so far, to either stream."""
        return "" if self.output is None else self.output.read_text(encoding="utf-8")


def coach(*arguments: str, output: Path | None = None) -> Forked:
    """Start the command line with these arguments."""
    return Forked(_type, *arguments, output=output)


def _call(target: Callable[..., Any], args: tuple[Any, ...], output: str) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(written, 1)
    os.dup2(written, 2)
    sys.exit(target(*args))


def _type(*arguments: str) -> None:
    import coach_cli

    sys.argv = ["coach", *arguments]
    coach_cli.main()
