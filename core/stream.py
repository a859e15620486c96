"""The random stream that networks draw from while they act or learn.

A network has randomness of its own where its layers are noisy or its quantiles are drawn. It must
come from the stream of whoever runs it: the actor's while acting, the learner's while learning, so
that runs repeat bit for bit; and while evaluating there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_stream: ContextVar[torch.Generator | None] = ContextVar("stream", default=None)


@contextmanager
def drawing_from(stream: torch.Generator | None) -> Iterator[None]:
    """Within it, networks draw from ``stream``; from ``None``, they are deterministic."""
    token = _stream.set(stream)
    try:
        yield
    finally:
        _stream.reset(token)


def current_stream() -> torch.Generator | None:
    """The stream to draw from; ``None`` where nothing random is wanted."""
    return _stream.get()
