"""An environment that takes its time, as an external simulator does."""

from __future__ import annotations

import time
from typing import Any

from tiny_world import TinyWorld


class WaitingWorld(TinyWorld):
    """A `TinyWorld` whose steps wait."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.002)
        return super().step(action)
