"""Measurements beside the observation, for agents that predict what becomes of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from coach.core.errors import CoachError, SettingError
from coach.core.measurements import MEASUREMENTS
from gymnasium import spaces
from numpy.typing import NDArray


class AddMeasurements(gym.Wrapper[Any, Any, Any, Any]):
    """Makes the observation a Dict of ``observation`` and ``measurements``.

    An observation that is a Dict already keeps its entries and gets the measurements besides. They
    are, in this order: the rewards of the episode so far, entries of the observation, and numbers
    out of ``info``. In a preset:
    ``wrappers: [{"coach.environments.measured:AddMeasurements": {reward_scale: 0.01}}]``.

    Args:
        env: any environment.
        reward_scale: what the rewards so far are multiplied by; null leaves them out.
        entries: indices of entries of the observation, which is a vector then.
        info: keys of numbers in ``info``. Where ``info`` lacks one, it stays what it was, and it is
            0 at an episode's start; an environment that has not shown it after a step has none.

    Raises:
        SettingError: nothing would be measured, or something that is not there.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        reward_scale: float | None = 1.0,
        entries: list[int] | None = None,
        info: list[str] | None = None,
    ) -> None:
        super().__init__(env)
        self.reward_scale, self.keys = reward_scale, list(info or [])
        self.entries = np.asarray(entries or [], np.int64)
        space = env.observation_space
        _check_entries(space, self.entries)
        count = (reward_scale is not None) + len(self.entries) + len(self.keys)
        if not count:
            raise SettingError(
                "environment.wrappers",
                "AddMeasurements has nothing to measure",
                "Give it reward_scale, entries or info.",
            )
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
        if MEASUREMENTS in parts:
            raise SettingError(
                "environment.wrappers",
                f"the observation has an entry '{MEASUREMENTS}' already",
                "Remove AddMeasurements.",
            )
        measured = spaces.Box(-np.inf, np.inf, (count,), np.float32)
        self.observation_space = spaces.Dict({**parts, MEASUREMENTS: measured})
        self._seen: set[str] = set()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode, with nothing earned yet."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._earned, self._shown = 0.0, dict.fromkeys(self.keys, 0.0)
        self._look(info)
        return self._with_measurements(observation), info

    def step(self, action: Any) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step and measure again.

        Raises:
            CoachError: ``info`` has never had one of the keys.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        with suppress(TypeError):  # what is no number is refused where the step is taken in
            self._earned += float(reward)
        self._look(info)
        for key in self.keys:
            if key not in self._seen:
                raise CoachError(
                    f"AddMeasurements looks for '{key}' in info, but the environment tells "
                    f"{sorted(map(str, info))}.",
                    "Correct `info:` of the wrapper in environment.wrappers.",
                )
        return self._with_measurements(observation), reward, terminated, truncated, info

    def _look(self, info: dict[str, Any]) -> None:
        for key in self.keys:
            if key in info:
                self._shown[key] = float(info[key])
                self._seen.add(key)

    def _with_measurements(self, observation: Any) -> dict[str, Any]:
        earned = [] if self.reward_scale is None else [self._earned * self.reward_scale]
        entries: Any = np.asarray(observation)[self.entries] if len(self.entries) else []
        values: NDArray[np.float32] = np.array(
            [*earned, *entries, *self._shown.values()], np.float32
        )
        parts = observation if isinstance(observation, dict) else {"observation": observation}
        return {**parts, MEASUREMENTS: values}


def _check_entries(space: spaces.Space[Any], entries: NDArray[np.int64]) -> None:
    if not len(entries):
        return
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise SettingError(
            "environment.wrappers", f"AddMeasurements finds entries in a vector, not in {space}"
        )
    if not all(0 <= index < space.shape[0] for index in entries):
        raise SettingError(
            "environment.wrappers",
            f"entries: {entries.tolist()} does not fit {space.shape[0]} numbers",
        )
