"""The middleware contract: what stands between the embedders and the heads."""

from __future__ import annotations

from typing import ClassVar

from coach.core.batch import State
from torch import Tensor, nn


class Middleware(nn.Module):
    """Maps merged features to features, possibly carrying a recurrent state.

    Constructors take ``features`` (injected: the width that comes in) and their own settings,
    and set ``outputs``. Recurrent ones derive from `coach.architectures.recurrent.Recurrent`.
    """

    kind: ClassVar[str] = "middleware"
    injected = frozenset({"features"})
    outputs: int

    def forward(
        self, features: Tensor, state: State = None, boundary: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """``[B, features]`` and the state before, to ``[B, outputs]`` and the state after.

        Rows may be several steps of ``M`` columns, time-major; then the state before has ``M``
        rows, ``boundary`` ``[B]`` says behind which rows it starts anew, and the state after is
        that after each row.
        """
        raise TypeError(f"{type(self).__name__} must define `forward`")

    def initial_state(self, num_envs: int) -> State:
        """State at the start of an episode; ``None`` for feed-forward middleware."""
        return None
