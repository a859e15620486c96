"""Files that are damaged are kept under another name: a person may still make something of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path


def set_aside(path: Path) -> Path:
    """Rename a damaged file to ``<name>.damaged-<time>``, which is returned.

    Raises:
        OSError: it cannot be renamed.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    target, number = path.with_name(f"{path.name}.damaged-{stamp}"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    path.rename(target)
    return target
