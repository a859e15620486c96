"""States to save are flat: names with dots, to tensors and JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose names begin with ``prefix``, without it."""
    return {k[len(prefix) :]: value for k, value in state.items() if k.startswith(prefix)}


def prefixed(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The same entries, ``prefix`` before their names."""
    return {f"{prefix}{key}": value for key, value in state.items()}
