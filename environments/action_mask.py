"""Moves a mask of allowed actions from ``info`` into the observation, where agents heed it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.action_mask import ACTION_MASK
from coach.core.errors import SettingError
from gymnasium import spaces


class ActionMask(gym.Wrapper[dict[str, Any], Any, Any, Any]):
    """Adds ``info["action_mask"]`` to the observation, see `coach.core.action_mask`.

    In a preset: ``wrappers: ["coach.environments.action_mask:ActionMask"]``. An observation that is
    no Dict becomes the entry ``observation``.

    Args:
        env: with Discrete actions, telling in ``info`` which of them are allowed.
        key: of the mask in ``info``.

    Raises:
        SettingError: actions are not Discrete, or ``info`` holds no such mask.
    """

    def __init__(self, env: gym.Env[Any, Any], key: str = ACTION_MASK) -> None:
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise SettingError(
                "environment.wrappers", f"ActionMask needs Discrete actions, not {env.action_space}"
            )
        self.key, self.count = key, int(env.action_space.n)
        inner = env.observation_space
        entries = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {"observation": inner}
        entries[ACTION_MASK] = spaces.MultiBinary(self.count)
        self.observation_space = spaces.Dict(entries)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._joined(obs, info), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._joined(obs, info), reward, terminated, truncated, info

    def _joined(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        mask = np.asarray(info.get(self.key, ()), np.int8)
        if mask.shape != (self.count,):
            raise SettingError(
                "environment.wrappers",
                f"info['{self.key}'] is no mask of {self.count} actions but {info.get(self.key)!r}",
                f"The environment's info has {sorted(info)}.",
            )
        entries = dict(obs) if isinstance(obs, dict) else {"observation": obs}
        return entries | {ACTION_MASK: mask}
