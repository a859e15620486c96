"""The arrays that environments write at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from coach.core.batch import map_tree
from coach.core.layout import Zeros, allocate, as_numpy, observation_layout, zeros
from coach.core.source import Episode
from coach.core.spec import Spec
from coach.environments.vector import Step
from numpy.typing import NDArray


@dataclass
class EnvArrays:
    """Outcomes of one step of ``N`` environments; possibly rows of larger or of shared arrays.

    Args:
        obs: what to act on next.
        next_obs: what the step led to.
        reward: ``[N]``.
        terminated: ``[N]``.
        truncated: ``[N]``.
        value: ``[N]`` float64; sum of the rewards of the episode that ended with this step.
        continues: ``[N]``; the present episode began where the one before ended.
        dropped: ``[N]``; the episode that ended with this step had a bad value.
    """

    obs: Any
    next_obs: Any
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    value: NDArray[np.float64]
    continues: NDArray[np.bool_]
    dropped: NDArray[np.bool_]

    @staticmethod
    def allocate(spec: Spec, num_envs: int, zeros: Zeros = zeros) -> EnvArrays:
        """Arrays for ``num_envs`` environments."""
        layout = observation_layout(spec.observation)
        scalars = (torch.float32, torch.bool, torch.bool, torch.float64, torch.bool, torch.bool)
        return EnvArrays(
            as_numpy(allocate(layout, num_envs, zeros=zeros)),
            as_numpy(allocate(layout, num_envs, zeros=zeros)),
            *(zeros((num_envs,), dtype).numpy() for dtype in scalars),
        )

    def step(self, episodes: list[Episode], dropped: int = 0) -> Step:
        """What is in them, as the outcome of a step."""
        return self._outcome(episodes, dropped) if episodes or dropped else self.uneventful

    @cached_property
    def uneventful(self) -> Step:
        """What is in them, as the outcome of a step in which no episode ended."""
        return self._outcome(())

    def _outcome(self, episodes: Sequence[Episode], dropped: int = 0) -> Step:
        return Step(
            self.obs,
            self.reward,
            self.terminated,
            self.truncated,
            self.next_obs,
            episodes,
            dropped,
        )

    def rows(self, begin: int, end: int) -> EnvArrays:
        """The arrays of some of the environments, sharing memory."""
        return EnvArrays(
            *(map_tree(lambda a: a[begin:end], getattr(self, item.name)) for item in fields(self))
        )
