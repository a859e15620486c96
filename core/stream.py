"""The random stream that networks draw from while they act or learn.

A network has randomness of its own where its layers are noisy or its quantiles are drawn. It must
come from the stream of whoever runs it: the actor's while acting, the learner's while learning, so
that runs repeat bit for bit; and while evaluating there is none.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

import torch

_stream: ContextVar[torch.Generator | None] = ContextVar("stream", default=None)


class drawing_from:  # noqa: N801, entered in every step and update, so no generator
    """Within it, networks draw from ``stream``; from ``None``, they are deterministic."""

    __slots__ = ("_before", "_stream")

    def __init__(self, stream: torch.Generator | None) -> None:
        self._stream = stream
        self._before: Token[torch.Generator | None]

    def __enter__(self) -> None:
        self._before = _stream.set(self._stream)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _stream.reset(self._before)


def current_stream() -> torch.Generator | None:
    """The stream to draw from; ``None`` where nothing random is wanted."""
    return _stream.get()
