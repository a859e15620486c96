"""The vector environment contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from coach.core.source import Episode, Notice, Standing
from coach.core.spec import Spec
from numpy.typing import NDArray


@dataclass
class Step:
    """What one step of ``N`` environments brought. Arrays are valid until the next step.

    Args:
        obs: what to act on next; after an episode's end, the first observation of the new one.
        reward: ``[N]`` float32.
        terminated: ``[N]`` bool.
        truncated: ``[N]`` bool.
        next_obs: the observation that the step led to, the final one at an episode's end.
        episodes: those that ended with this step.
        dropped: episodes that a bad value ended, see ``environment.on_bad_value``. What this step
            brought in their environments must not be used; only ``obs`` is theirs.
    """

    obs: Any
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    next_obs: Any
    episodes: Sequence[Episode]
    dropped: int = 0


class VectorEnv(Protocol):
    """``N`` environments stepped together; an ended episode restarts within the same step.

    Every episode is seeded on its own, from the run's seed, the environment's id and the number of
    the episode. What an environment does is therefore a function of these and of the actions, so
    it can be brought back after an interruption, in whatever process.
    """

    spec: Spec
    num_envs: int
    #: Whether `load_state_dict` can bring unfinished episodes back.
    restorable: bool = True

    def reset(self) -> Any:
        """Begin an episode in every environment; returns the observations."""

    def step(self, action: NDArray[Any]) -> Step:
        """Take one action per environment, in the agent's form (see `to_environment`)."""

    def state_dict(self) -> dict[str, Any]:
        """Episode numbers and the actions since each episode began."""

    def load_state_dict(self, state: dict[str, Any], repeat: bool = True) -> Any:
        """Bring every environment back to where it was; returns the observations.

        With ``repeat`` False unfinished episodes are given up and the next ones begin.
        """

    @property
    def episode(self) -> list[int]:
        """Number of every environment's episode, from 0."""

    def unfinished(self, i: int) -> Episode | None:
        """The episode that environment ``i`` is in, where episodes cannot be cut."""
        return None

    def notices(self) -> list[Notice]:
        """What is to be said about the environments since the last call."""
        return []

    def standing(self) -> Standing | None:
        """How the workers did since the last call, where others step the environments."""
        return None

    def close(self) -> None:
        """Close the environments."""
