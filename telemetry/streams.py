"""Output that may be closed: a pipe whose reader is gone, a terminal that was shut.

Then output ends, and nothing else: `coach train ... | head -1` goes on training.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

_CLOSED = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal


class _Raw(io.FileIO):
    """A file descriptor that takes everything once nobody reads it any more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            with suppress(OSError):  # for native code, and processes that are started later
                sink = os.open(os.devnull, os.O_WRONLY)
                os.dup2(sink, self.fileno())
                os.close(sink)
            return len(memoryview(data).cast("B"))


def survive_closed_output() -> None:
    """Let stdout and stderr of this process go on as if somebody read them when nobody does."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Streams that somebody has put in their place, such as a notebook, are left alone.
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            setattr(sys, name, _forgiving(stream))


def _forgiving(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _Raw(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
