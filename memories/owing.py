"""What replay memories have in common: a fixed number of updates per environment step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from coach.core.memory import Memory, share_of_batch
from coach.memories.stripes import Stripes


class Owing(Memory):
    """Owes ``updates_per_step`` updates for every environment step after the warm-up.

    Subclasses set the attributes below in their constructors.
    """

    order = "replay"
    warmup: int
    updates_per_step: float
    #: Environment steps written, and updates handed out.
    env_steps: int = 0
    updates: int = 0

    @property
    @abstractmethod
    def stripes(self) -> Stripes:
        """Where the transitions are."""

    def divided(self, settings: dict[str, Any], workers: int, together: bool) -> dict[str, Any]:
        divided = {**settings, "warmup": settings["warmup"] // workers}
        divided["capacity"] = -(-settings["capacity"] // workers)
        if together:
            divided["batch_size"] = share_of_batch(settings["batch_size"], workers)
            divided["updates_per_step"] = settings["updates_per_step"] * workers
        return divided

    def check_settings(self, say: Callable[[str], None]) -> None:
        held = self.stripes.held * self.stripes.num_envs
        if self.warmup > held:
            say(
                f"memory.warmup: updates begin after {self.warmup:,} steps, when all but the last "
                f"{held:,} transitions are dropped again. Lower it, or raise memory.capacity."
            )

    def oldest(self) -> list[int]:
        oldest: list[int] = (self.stripes.written - self.stripes.counts).tolist()
        return oldest

    def due(self) -> int:
        """Updates that the steps so far are worth, those made already included."""
        # The small term absorbs rounding in ratios such as 0.1, which have no exact float.
        return int((self.env_steps - self.warmup) * self.updates_per_step + 1e-6)

    def counted(self) -> dict[str, Any]:
        """The counters, as entries of a state."""
        return {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "updates_per_step": self.updates_per_step,
        }

    def count_on(self, state: dict[str, Any]) -> None:
        """Go on from the counters of a state."""
        self.env_steps, self.updates = state["env_steps"], state["updates"]
        if state["updates_per_step"] != self.updates_per_step:  # another ratio from here on
            self.updates = max(self.due(), 0)
