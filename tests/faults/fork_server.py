"""Forks itself on request: children are as new interpreters are that have imported Coach already.

Unlike those of multiprocessing's fork server, they hold no pipe of anybody else, are parents of
their own workers, and end as interpreters do. Requests come pickled through standard input, answers
go through standard output; see `forked.Forked`.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import NoReturn

PRELOADED = ["coach.runners.worker", "coach.runners.experiment", "coach.runners.verify"]


def serve() -> None:
    """Answer requests until the one who asks is gone; return in the children."""
    if os.fork():  # so that it is no child of the one who asks: commands end those they find
        os._exit(0)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what imports print must not be taken for an answer
    for name in PRELOADED:
        __import__(name)
    while True:
        try:
            what, given = pickle.load(requests)
        except EOFError:
            return
        if what == "start":
            pid = os.fork()
            if pid == 0:
                answers.close()  # or else that happens later, to whoever has its number then
                become(**given)
            answer: int | None = pid
        else:
            pid, status = os.waitpid(given, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        pickle.dump(answer, answers)
        answers.flush()


def become(
    call: bytes, path: list[str], output: str, folder: str, environment: dict[str, str]
) -> NoReturn:
    """Turn the child into a process of its own that makes the call.

    Args:
        call: a function and its arguments, pickled.
        path: where it imports from.
        output: file that takes what it prints.
        folder: where it works.
        environment: its variables.
    """
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for opened, number in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(opened, number)
    os.close(nothing)
    os.close(written)
    for number in (signal.SIGINT, signal.SIGHUP):  # as a terminal would start it
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    function, args = pickle.loads(call)
    sys.exit(function(*args))


if __name__ == "__main__":
    serve()
