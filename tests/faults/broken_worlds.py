"""Environments that break in one way each, in a chosen step of their life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class World(gym.Env[Any, Any]):
    """Episodes of seven steps, until a step in which something is done.

    Args:
        at: number of the step, over all episodes, in which `strike` is called; 0 never.
    """

    length = 7
    sound = False  # nothing is done any more

    def __init__(self, at: int = 0) -> None:
        self.observation_space = spaces.Box(-2, 2, (4,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.at, self.taken, self.t = at, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken += 1
        self.t += 1
        if self.taken == self.at and not World.sound:
            self.strike()
        return self._observe(), 0.5, self.t >= self.length, False, {}

    def strike(self) -> None:
        """What goes wrong."""

    def _observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 4).astype(np.float32)


class Raises(World):
    def strike(self) -> None:
        raise ValueError("the valve is stuck")


class LosesFile(World):
    def strike(self) -> None:
        open("/no/such/place/map.bin")  # noqa: SIM115


class LosesConnection(World):
    def strike(self) -> None:
        raise ConnectionRefusedError(111, "Connection refused")


class Exits(World):
    def strike(self) -> None:
        sys.exit(3)


class RaisesAtReset(World):
    """Its third episode cannot begin."""

    begun = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.begun += 1
        if self.begun == 3:
            raise LookupError("no level of that number")
        return super().reset(seed=seed)


class RaisesInClose(World):
    def close(self) -> None:
        raise AttributeError("the viewer is gone")


class Sleeps(World):
    """Gets a signal, and then does not come back by itself.

    Args:
        at: see `World`; for ``where: step``.
        where: step, reset, close or make.
        signals: how many come, one after the other.
        mark: written when it falls asleep.
        woke: written if it wakes up by itself.
        number: of the signal.
    """

    def __init__(
        self,
        at: int = 0,
        where: str = "step",
        signals: int = 1,
        mark: str = "",
        woke: str = "",
        number: int = signal.SIGTERM,
    ) -> None:
        super().__init__(at)
        self.where, self.signals, self.mark, self.woke = where, signals, mark, woke
        self.number, self.begun = number, 0
        if where == "make":
            self.sleep()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.begun += 1
        if self.where == "reset" and self.begun == self.at and not World.sound:
            self.sleep()
        return super().reset(seed=seed)

    def strike(self) -> None:
        if self.where == "step":
            self.sleep()

    def close(self) -> None:
        if self.where == "close" and self.taken:
            self.sleep()

    def sleep(self) -> None:
        if self.mark:
            Path(self.mark).touch()
        for _ in range(self.signals):
            os.kill(os.getpid(), self.number)
        try:
            time.sleep(90)
        except Exception:
            time.sleep(90)
        if self.woke:
            Path(self.woke).touch()


class Signals(World):
    """Sends its process a signal and goes on."""

    def strike(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


class TakesSignals(World):
    """Handles signals itself, as some simulators do, for nothing."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(at)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def strike(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Endless(World):
    """Episodes never end."""

    length = 10**9


class OnlyOne(World):
    """Cannot exist twice in a process, like a simulator on a port of its own."""

    alive = 0

    def __init__(self, at: int = 0) -> None:
        if OnlyOne.alive:
            raise RuntimeError("port 5123 is taken")
        OnlyOne.alive += 1
        super().__init__(at)

    def close(self) -> None:
        OnlyOne.alive -= 1


class Prints(World):
    def _observe(self) -> Any:
        print("step", self.taken, flush=True)
        return super()._observe()


class Wanders(World):
    """Goes to another folder in every episode, as simulators with relative paths do."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        Path("assets").mkdir(exist_ok=True)
        os.chdir("assets" if self.at == 0 else "..")
        self.at = 1 - self.at
        return super().reset(seed=seed)


class LeavesChildren(World):
    """Starts a process and a thread that nobody ends."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.process = subprocess.Popen(["tail", "-f", file])
        threading.Thread(target=time.sleep, args=(600,)).start()
