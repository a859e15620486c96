"""One process at a time trains in a run folder."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from coach.core.errors import CoachError
from coach.runners.storage import unwritable

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


class LockedRunError(CoachError):
    """Another process trains in the run's folder."""


class RunLock:
    """Holds a run folder; the operating system lets go of it when the process ends, however.

    Reading the folder (`coach evaluate`) needs no lock.

    Args:
        folder: of the run.

    Raises:
        LockedRunError: another process, or another run in this one, holds it.
        ResourceError: the folder cannot be written.
    """

    #: Whether the file system knows locks; if not, nobody is kept out.
    works: bool = fcntl is not None

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._handle: int | None = None
        while self._handle is None:
            handle = self._open(folder)
            if self._is_current(handle):
                self._handle = handle
            else:  # another process released it, and removed the file, in between
                os.close(handle)
        since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()} (since {since})"
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{holder}\n".encode(), 0)

    def release(self) -> None:
        """Let others have the folder."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(OSError):
                if self._is_current(handle):
                    self._path.unlink()
            os.close(handle)

    def __del__(self) -> None:
        with suppress(AttributeError):
            self.release()

    def _open(self, folder: Path) -> int:
        try:
            # Never through a link, which might lead anywhere.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise unwritable(self._path, error) from error
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            os.close(handle)
            raise LockedRunError(
                f"{folder} is in use: {holder or 'another process'} trains in it.",
                "Wait until it ends, or end it; then resume.",
            ) from None
        except OSError:  # on a network drive, say
            self.works = False
        return handle

    def _is_current(self, handle: int) -> bool:
        """Whether the locked file is the one that others would find."""
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self._path))
        except FileNotFoundError:
            return False
