"""Random streams that share nothing: one seed per purpose."""

from __future__ import annotations

import zlib

import numpy as np


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose ("weights", "actor", ...) that shares nothing with the others."""
    sequence = np.random.SeedSequence((seed, zlib.crc32(purpose.encode())))
    return int(sequence.generate_state(1)[0])
