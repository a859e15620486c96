"""Environments stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from coach.core.layout import allocate, as_numpy, assign, named_leaves, observation_layout
from coach.core.spec import Spec
from coach.environments.actions import to_environment
from coach.environments.history import History, check_restored
from coach.environments.vector import Step
from numpy.typing import NDArray


class SerialEnvs:
    """``num_envs`` environments in a loop; see `VectorEnv`.

    Args:
        factory: makes one environment.
        num_envs: how many.
        seed: of the run; episodes derive theirs from it.
        first_env: global id of the first environment.
    """

    def __init__(
        self,
        factory: Callable[[], gym.Env[Any, Any]],
        num_envs: int,
        seed: int,
        first_env: int = 0,
    ) -> None:
        self.envs = [factory() for _ in range(num_envs)]
        self.num_envs = num_envs
        self.spec = Spec(self.envs[0].observation_space, self.envs[0].action_space)
        self._history = History(self.envs, seed, first_env)
        self._translate = to_environment(self.spec.action)
        layout = observation_layout(self.spec.observation)
        self._obs = as_numpy(allocate(layout, num_envs))
        self._next = as_numpy(allocate(layout, num_envs))
        self._reward = np.zeros(num_envs, np.float32)
        self._terminated = np.zeros(num_envs, bool)
        self._truncated = np.zeros(num_envs, bool)

    def reset(self) -> Any:
        """Begin an episode in every environment; returns the observations."""
        for i in range(self.num_envs):
            assign(self._obs, i, self._history.begin(i))
        return self._obs

    def step(self, action: NDArray[Any]) -> Step:
        """Take one action per environment; restart those whose episode ended."""
        action = action.copy()  # the history keeps its rows
        history, ended = self._history, []
        for i, (env, move) in enumerate(zip(self.envs, self._translate(action))):
            obs, reward, terminated, truncated, _ = env.step(move)
            assign(self._next, i, obs)
            self._reward[i] = reward
            self._terminated[i], self._truncated[i] = terminated, truncated
            history.record(i, action[i], float(reward))
            if terminated or truncated:
                ended.append(i)
        assign(self._obs, ..., self._next)
        episodes = [history.finished(i) for i in ended]
        for i in ended:
            assign(self._obs, i, history.begin(i))
        return Step(
            self._obs, self._reward, self._terminated, self._truncated, self._next, episodes
        )

    def state_dict(self) -> dict[str, Any]:
        """The history of unfinished episodes, and the observations they have come to."""
        leaves = named_leaves(self._obs, "obs").items()
        return self._history.state_dict() | {k: torch.from_numpy(v.copy()) for k, v in leaves}

    def load_state_dict(self, state: dict[str, Any], repeat: bool = True) -> Any:
        """Repeat every unfinished episode, or begin the next ones; returns the observations.

        Raises:
            CoachError: an environment did not come back to the same observation.
        """
        if not repeat:
            self._history.episode = list(state["episode"])
            return self.reset()
        for i in range(self.num_envs):
            assign(self._obs, i, self._history.repeat(state, self._translate, i))
            for name, leaf in named_leaves(self._obs, "obs").items():
                check_restored(i, state[name].numpy()[i], leaf[i])
        return self._obs

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()
