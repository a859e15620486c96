"""What networks return."""

from __future__ import annotations

from typing import Any

from coach.core.batch import State


class Outputs:
    """What a network returns: an attribute per head, and the recurrent ``state`` after the step."""

    def __init__(self, heads: dict[str, Any], state: State) -> None:
        self.__dict__.update(heads)
        self.state = state

    def __getattr__(self, name: str) -> Any:  # reached only where no head has that name
        raise AttributeError(f"this network has no head '{name}'; it has {sorted(self.__dict__)}")
