"""An environment that fails, in a chosen way, a chosen number of times."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class FaultyWorld(gym.Env[Any, Any]):
    """Fails in its tenth step, as long as there are files left to use up in ``folder``.

    Args:
        how: raise, kill or hang.
        folder: one of its files is removed with every failure.
        spare: leave the process alone that the run began in.
        refuses: cannot be made in any other process.
    """

    def __init__(self, how: str, folder: str, spare: bool = False, refuses: bool = False) -> None:
        if refuses and multiprocessing.parent_process() is not None:
            raise RuntimeError("no licence for a second simulator")
        self.spared = spare and multiprocessing.parent_process() is None
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.how, self.folder, self.taken = how, Path(folder), 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken += 1
        if self.taken >= 10 and not self.spared:
            self._fail()
        return self._observe(), 1.0, self.taken % 7 == 0, False, {}

    def _fail(self) -> None:
        for ticket in self.folder.iterdir():
            try:
                ticket.unlink()
            except FileNotFoundError:
                continue  # another worker took it
            if self.how == "raise":
                raise RuntimeError("the simulator lost its licence")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)

    def _observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)
