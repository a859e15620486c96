"""`coach` in processes of its own, forked from one that has imported everything already.

A new interpreter imports torch first, which takes seconds. These processes are as new, and ready.
"""

from __future__ import annotations

import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any

PATIENCE = 600.0  # generous: nothing here is about speed


class Server:
    """The process that is forked; it ends with this one."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("fork_server.py")
        self._lock = Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._process.wait()  # by then it has forked itself, and that goes on

    def ask(self, what: str, given: Any) -> int | None:
        """The answer to a request."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        with self._lock:
            pickle.dump((what, given), requests)
            requests.flush()
            answer: int | None = pickle.load(answers)
        return answer


@cache
def server() -> Server:
    """The one of this session."""
    return Server()


class Forked:
    """A process that calls a function, in a session of its own.

    Args:
        target: what it calls; pickled, and so are its arguments.
        args: its arguments.
        output: file that takes what the process prints; without one nobody reads it.
        folder: where it works; left out, where this process does.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        *args: Any,
        output: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self.output = output
        self._status: int | None = None
        request = {
            "call": pickle.dumps((target, args)),
            "path": sys.path,
            "output": str(output or os.devnull),
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ),
        }
        pid = server().ask("start", request)
        assert pid is not None
        self.pid: int = pid

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            os.kill(self.pid, 9)

    def poll(self) -> int | None:
        """Its exit status, if it has ended; that of a signal is negative."""
        if self._status is None:
            self._status = server().ask("poll", self.pid)
        return self._status

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        begin = monotonic()
        while (status := self.poll()) is None:
            assert monotonic() - begin < PATIENCE, "it does not end"
            sleep(0.005)
        return status

    def printed(self) -> str:
        """What it has printed so far, to either stream."""
        return "" if self.output is None else self.output.read_text(encoding="utf-8")


def coach(*arguments: str, output: Path | None = None, folder: Path | None = None) -> Forked:
    """Start the command line with these arguments."""
    return Forked(_type, *arguments, output=output, folder=folder)


def _type(*arguments: str) -> None:
    sys.argv = ["coach", *arguments]
    runpy.run_module("coach_cli", run_name="__main__", alter_sys=True)
