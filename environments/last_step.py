"""Shows what was done last, and what came of it, as part of the observation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.errors import SettingError
from gymnasium import spaces

ACTION, REWARD = "last_action", "last_reward"


class LastStep(gym.Wrapper[dict[str, Any], Any, Any, Any]):
    """Adds the last action and the last reward to the observation, for policies that remember.

    In a preset: ``wrappers: ["coach.environments.last_step:LastStep"]``. An observation that is no
    Dict becomes the entry ``observation``. The entries ``last_action`` (a Discrete action as a
    vector with a single 1) and ``last_reward`` are all 0 when an episode begins. An embedder
    ``{type: mlp, hidden: []}`` hands them on to the middleware as they are, as in R2D2 (ICLR 2019).

    They are part of what the environment shows, so every mode, memory and checkpoint has them, and
    the observation behind a step shows that step.

    Args:
        env: with actions of any kind that Gymnasium can flatten into a vector.
        reward_clip: largest magnitude of a reward that is shown; null shows them as they are.

    Raises:
        SettingError: actions cannot be flattened, or the observation has such entries already.
    """

    def __init__(self, env: gym.Env[Any, Any], reward_clip: float | None = None) -> None:
        super().__init__(env)
        self.reward_clip = np.inf if reward_clip is None else reward_clip
        inner = env.observation_space
        entries = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {"observation": inner}
        shown = spaces.flatten_space(env.action_space)
        if not isinstance(shown, spaces.Box):
            raise SettingError(
                "environment.wrappers", f"LastStep cannot show actions of {env.action_space}"
            )
        taken = sorted({ACTION, REWARD} & set(entries))
        if taken:
            raise SettingError(
                "environment.wrappers",
                f"the observation has an entry '{taken[0]}' already, which LastStep would add",
                "Remove the wrapper, or rename the entry in the environment.",
            )
        # Before the first action there is none, which all zeros say.
        low, high = np.minimum(shown.low, 0), np.maximum(shown.high, 0)
        entries[ACTION] = spaces.Box(
            low.astype(np.float32), high.astype(np.float32), dtype=np.float32
        )
        entries[REWARD] = spaces.Box(-self.reward_clip, self.reward_clip, (1,), np.float32)
        self.observation_space = spaces.Dict(entries)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        nothing = np.zeros(self.observation_space[ACTION].shape, np.float32)  # type: ignore[index]
        return self._joined(obs, nothing, 0.0), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        shown = np.asarray(spaces.flatten(self.env.action_space, action), np.float32)
        return self._joined(obs, shown, reward), reward, terminated, truncated, info

    def _joined(self, obs: Any, action: Any, reward: Any) -> dict[str, Any]:
        entries = dict(obs) if isinstance(obs, dict) else {"observation": obs}
        shown = np.clip(float(reward), -self.reward_clip, self.reward_clip)
        return entries | {ACTION: action, REWARD: np.array([shown], np.float32)}
