"""Short messages between the run and a worker; nothing in them is pickled."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_HEADER = struct.Struct("<cqqI")


@dataclass(frozen=True)
class Message:
    """What one side says to the other.

    Args:
        kind: one byte, see the users of channels.
        value: a number, such as that of a slot.
        step: a count of environment steps.
        data: more, mostly nothing.
    """

    kind: bytes
    value: int = 0
    step: int = 0
    data: bytes = b""

    @property
    def text(self) -> str:
        """The data, if it is words."""
        return self.data.decode()


class ChannelClosedError(Exception):
    """The other side is gone; the operating system says so even if it was killed."""


class Channel:
    """One end of a two-way connection.

    Args:
        end: a connected stream socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._patience: float | None = None

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        """Two connected ends; one of them is handed to a worker while it is being started."""
        one, other = socket.socketpair()
        return Channel(one), Channel(other)

    def send(self, kind: bytes, value: int = 0, step: int = 0, data: bytes = b"") -> None:
        """Send a message.

        Raises:
            ChannelClosedError: the other side is gone.
        """
        try:
            if self._patience == 0:
                self._wait_for(None)
            self.socket.sendall(_HEADER.pack(kind, value, step, len(data)) + data)
        except OSError as error:
            raise ChannelClosedError from error

    def receive(self, timeout: float | None = None) -> Message:
        """The next message.

        Args:
            timeout: seconds to wait at most; ``None`` waits for ever.

        Raises:
            ChannelClosedError: the other side is gone.
            TimeoutError: nothing came in time.
        """
        self._wait_for(timeout)
        kind, value, step, length = _HEADER.unpack(self._exactly(_HEADER.size))
        return Message(kind, value, step, self._exactly(length) if length else b"")

    def waiting(self, timeout: float = 0.0) -> bool:
        """Whether a message is there, or begins to come within ``timeout`` seconds.

        Raises:
            ChannelClosedError: the other side is gone.
        """
        self._wait_for(timeout)
        try:
            peeked = self.socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError as error:
            raise ChannelClosedError from error
        if not peeked:
            raise ChannelClosedError
        return True

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    def _wait_for(self, patience: float | None) -> None:
        if patience != self._patience:  # every change is a system call
            self.socket.settimeout(patience)
            self._patience = patience

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosedError from error
            if not piece:
                raise ChannelClosedError
            data = data + piece if data else piece
        return data
