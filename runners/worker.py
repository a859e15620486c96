"""Starting, watching and ending the processes or threads that work for a run."""

from __future__ import annotations

import atexit
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from coach.core.errors import (
    BadValueError,
    CoachError,
    FailedEnvironmentError,
    NotFiniteError,
)
from coach.core.registry import load_plugin
from coach.runners.channel import Channel, ChannelClosedError, Message
from coach.runners.interrupts import ENDING
from coach.runners.process import end_leftovers
from coach.telemetry.streams import survive_closed_output

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

WorkerKind: TypeAlias = Literal["process", "thread"]
#: What a worker runs: it gets its end of the channel and its arguments.
Target: TypeAlias = Callable[..., None]

FAILED = b"!"  # kind of the message that brings a traceback
#: Kinds of the messages that bring an error which ends the run: a worker would meet it again.
_FINAL: dict[bytes, type[BadValueError | NotFiniteError]] = {
    b"v": BadValueError,
    b"n": NotFiniteError,
}
START_SECONDS = 300.0  # importing and making environments may take long on a loaded machine
_STOP_SECONDS, _LAST_WORDS_SECONDS = 5.0, 1.0


def spread(num_envs: int, workers: int) -> list[range]:
    """Environments ``0 .. num_envs`` in ``workers`` consecutive shares of about the same size."""
    edges = [round(share * num_envs / workers) for share in range(workers + 1)]
    return [range(begin, end) for begin, end in pairwise(edges)]


class WorkerError(CoachError):
    """Workers failed more often than the run tolerates."""

    exit_status = 4


def failure_in(message: Message) -> str | None:
    """In words what a worker failed with, if its message says that it did.

    Raises:
        BadValueError: its environment returned something that cannot be used.
        NotFiniteError: something of its agent became NaN or infinite.
    """
    if message.kind in _FINAL:
        raise _FINAL[message.kind](*json.loads(message.data))
    return message.text if message.kind == FAILED else None


def in_words(error: BaseException) -> str:
    """A failure as it is reported: our own errors by their text, others with their traceback."""
    if isinstance(error, FailedEnvironmentError):
        return error.problem  # ends with what the environment raised
    if isinstance(error, CoachError):
        return str(error)
    return "".join(traceback.format_exception(error))


class Worker:
    """One process or thread that serves the run over a channel.

    Args:
        number: which of the workers it is.
        kind: process or thread.
        target: called with the channel and ``args``.
        plugins: imported first.
        beside: start at once, without the fork server, which the first worker waits for until it
            has imported everything.
    """

    def __init__(
        self,
        number: int,
        kind: WorkerKind,
        target: Target,
        plugins: list[str],
        beside: bool = False,
    ) -> None:
        self.number, self.kind, self.target, self.plugins = number, kind, target, plugins
        self.beside = beside
        self.channel: Channel
        self._process: Any = None
        _ALL.add(self)

    def start(self, *args: Any) -> None:
        """Start (again); ``args`` are the only objects that are ever pickled."""
        self.channel, theirs = Channel.pair()
        if self.kind == "thread":
            self._process = threading.Thread(
                target=_serve, args=(self.target, theirs, args), daemon=True
            )
            self._process.start()
            return
        context = multiprocessing.get_context("spawn") if self.beside else _context()
        self._process = context.Process(
            target=_serve_process, args=(self.plugins, self.target, theirs, args), daemon=True
        )
        resource_tracker.ensure_running()  # which would let signals through again
        with _signals_held():
            self._process.start()
        theirs.close()

    def death(self) -> str:
        """In words, how a worker ended that hung up without a traceback."""
        if self.kind == "thread":
            return "its thread ended"
        self._process.join(_STOP_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"it was killed by {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"

    def kill(self) -> None:
        """End it at once; a thread can only be hung up on."""
        self.channel.close()
        if self.kind == "process" and self._process is not None:
            self._process.kill()
            self._process.join(_STOP_SECONDS)

    def kill_soon(self) -> None:
        """End a process without waiting for it; any thread may call this."""
        if self.kind == "process" and self._process is not None:
            self._process.kill()

    @property
    def alive(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and bool(self._process.is_alive())

    def join(self, patience: float) -> None:
        """Wait until it has ended, after hanging up; kill it if that takes too long."""
        if self._process is None:
            return
        self._process.join(patience)
        if self._process.is_alive():
            self.kill()


def stop_all(workers: Iterable[Worker]) -> None:
    """Hang up on workers, which ends them; kill those that take too long."""
    started = [worker for worker in workers if worker.alive]
    for worker in started:
        worker.channel.close()
    until = monotonic() + _STOP_SECONDS
    try:
        for worker in started:
            worker.join(max(until - monotonic(), 0.1))
    finally:  # a signal may break this off
        for worker in started:
            if worker.kind == "process" and worker.alive:
                worker.kill()


#: Every worker of this process. They ignore SIGTERM, with which multiprocessing would end them.
_ALL: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _kill_those_left() -> None:
    for worker in list(_ALL):
        if worker.alive:
            worker.kill()


class Tolerance:
    """How many failures of workers a run puts up with.

    Args:
        most: restarts in all.
        say: told about each failure.
        who: what a worker is called, its number in place of the braces.
        anew: with what it begins again.
    """

    def __init__(
        self,
        most: int,
        say: Callable[[str], None],
        who: str = "Worker {}",
        anew: str = "fresh episodes",
    ) -> None:
        self.most, self.say, self.restarts = most, say, 0
        self.who, self.anew = who, anew
        #: Restarts of each worker, by its number.
        self.of: Counter[int] = Counter()

    def restart(self, worker: Worker, failure: str) -> None:
        """End a worker that failed, and report it; the caller then starts it again.

        Raises:
            WorkerError: it was one too many, or a thread that cannot be ended.
        """
        worker.kill()
        if worker.alive and worker.kind == "thread":
            worker.join(_LAST_WORDS_SECONDS)
        if worker.alive:  # it would go on writing into memory that its successor writes
            raise WorkerError(
                f"Worker {worker.number} failed and cannot be ended, for it is a thread: "
                f"{failure.strip()}",
                "Use --worker-kind process; a checkpoint was written, so continue with --resume.",
            )
        self.note(worker.number, failure)

    def note(self, number: int, failure: str) -> None:
        """Report a failure of worker ``number``, which is about to begin again.

        Raises:
            WorkerError: it was one too many.
        """
        failure, who = failure.strip(), self.who.format(number)
        if self.restarts >= self.most:
            raise WorkerError(
                f"{who} failed, and {self.most} restarts are used up: {failure}",
                "Mend what fails, or raise run.max_restarts; a checkpoint was written, so continue "
                "with --resume.",
            )
        self.restarts += 1
        self.of[number] += 1
        self.say(
            f"{who} failed and is restarted with {self.anew} "
            f"({self.restarts} of at most {self.most} restarts): {failure}"
        )


def _serve(target: Target, channel: Channel, args: tuple[Any, ...]) -> None:
    try:
        target(channel, *args)
    except ChannelClosedError:
        return  # the run is over, or gone
    except (BadValueError, NotFiniteError) as error:
        kind = next(kind for kind, final in _FINAL.items() if isinstance(error, final))
        with suppress(ChannelClosedError):
            channel.send(kind, data=json.dumps([error.problem, error.remedy]).encode())
    except BaseException as error:
        with suppress(ChannelClosedError):
            channel.send(FAILED, data=in_words(error).encode())
    finally:
        channel.close()


def _serve_process(
    plugins: list[str], target: Target, channel: Channel, args: tuple[Any, ...]
) -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # the run decides when its workers end
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    survive_closed_output()
    _die_with_parent()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for plugin in plugins:
        load_plugin(plugin)
    _serve(target, channel, args)
    if end_leftovers(lambda text: print(text, file=sys.stderr)):
        os._exit(0)  # threads would keep the process


@contextmanager
def _signals_held() -> Iterator[None]:
    """Have a process that is started in here not see signals before it can ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent() -> None:
    """Have the system end this process with its parent, even while an environment hangs."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    # The parent is the fork server, which ends with the run, but waits for everybody who holds the
    # other end of this pipe; its children inherit that for no use.
    inherited = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if inherited is not None:
        with suppress(OSError):
            os.close(inherited)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]


def _context() -> ForkServerContext | SpawnContext:
    """Forked from a clean server that has imported torch once; spawned where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coach.runners.worker", "coach.runners.experiment"])
    return context
