"""Environments whose steps cost a known amount, to measure the modes of execution with.

A preset names them by path: ``environment: {id: benchmarks/worlds.py:Waiting}``. Their
observations are drawn anew in every step, and rewards mean nothing: nothing is to be learned.
"""

from __future__ import annotations

from pathlib import Path
from time import sleep, thread_time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

_LIMIT = 200  # steps of an episode


def named(world: type) -> str:
    """The id of one of these environments, for presets."""
    return f"{Path(__file__).resolve()}:{world.__name__}"


class World(gym.Env[Any, Any]):
    """A small observation, two actions, a time limit; a step costs next to nothing."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (4,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self._spend()
        return self._observe(), 1.0, False, self.steps == _LIMIT, {}

    def _spend(self) -> None:
        """What a step costs."""

    def _observe(self) -> Any:
        return self.np_random.random(4, np.float32)


class Waiting(World):
    """A step waits and leaves the CPU alone, as an external simulator does.

    Args:
        seconds: that a step takes.
    """

    def __init__(self, seconds: float = 0.002) -> None:
        super().__init__()
        self.seconds = seconds

    def _spend(self) -> None:
        sleep(self.seconds)


class Computing(World):
    """A step computes in Python, and so holds the interpreter's lock.

    It does a fixed amount of work: whoever competes for the CPU slows it down, as it would any
    simulator. One that watched the clock would get by with less.

    Args:
        work: what `work_of` gives for the seconds that a step is to take; to be found out once,
            and given to all.
    """

    def __init__(self, work: int) -> None:
        super().__init__()
        self.work = work

    def _spend(self) -> None:
        burn(self.work)


class Frames(gym.Env[Any, Any]):
    """Observations like those of Atari games, four frames of 84 x 84 bytes, at no cost."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
        self.action_space = spaces.Discrete(6)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.frames = self.np_random.integers(0, 256, (8, 4, 84, 84), np.uint8)
        return self.frames[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.frames[self.steps % 8], 0.0, False, self.steps == 1_000, {}


def burn(work: int) -> int:
    """Compute for a while."""
    value = 1
    for _ in range(work):
        value = (value * 1_103_515_245 + 12_345) % 2_147_483_648
    return value


def work_of(seconds: float) -> int:
    """How much work takes one CPU of this machine so many seconds if nothing disturbs it."""
    trial = 10_000
    spent = []
    for _ in range(50):
        begin = thread_time()  # of this thread alone, so others on the CPU do not count
        burn(trial)
        spent.append(thread_time() - begin)
    return round(trial * seconds / min(spent))
