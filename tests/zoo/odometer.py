"""An environment that shows where it is, and returns a bad value now and then."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

HOME = Path(__file__)


class Odometer(gym.Env[Any, Any]):
    """Shows the seed of its episode and the steps taken in it; each step pays 1, episodes take 6.

    Args:
        what: reward, observation or reset: where the bad value is.
        one_in: so many episodes have one, by their seed; 0 none.
        step: of the episode in which it comes.
        spare: none in the process that the run began in.
    """

    observation_space = spaces.Dict(
        place=spaces.Box(0, np.inf, (2,), np.float64), ends=spaces.Discrete(2)
    )
    action_space = spaces.Discrete(2)

    def __init__(
        self, what: str = "reward", one_in: int = 3, step: int = 4, spare: bool = False
    ) -> None:
        self.what, self.one_in, self.bad_step = what, one_in, step
        self.spared = spare and multiprocessing.parent_process() is None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        assert seed is not None
        self.mark, self.t = seed % 1_000, 0
        self.sick = bool(self.one_in) and self.mark % self.one_in == 0 and not self.spared
        return self._observe(self.what == "reset" and self.sick), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        bad = self.sick and self.t == self.bad_step
        reward = float("nan") if bad and self.what == "reward" else 1.0
        return self._observe(bad and self.what == "observation"), reward, self.t >= 6, False, {}

    def _observe(self, bad: bool) -> Any:
        place = np.array([self.mark, np.inf if bad else self.t])
        return {"place": place, "ends": int(self.t == 5)}
