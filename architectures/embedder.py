"""The embedder contract: one observation (or one key of a Dict observation) to features."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class Embedder(nn.Module):
    """Maps observations of one space to ``[B, features]``.

    Constructors take ``space`` (injected) and their own settings, and set ``features``.
    """

    kind: ClassVar[str] = "embedder"
    injected = frozenset({"space"})
    features: int

    def forward(self, obs: Tensor) -> Tensor:
        """Observations ``[B, ...]`` to features ``[B, features]``."""
        raise TypeError(f"{type(self).__name__} must define `forward`")
