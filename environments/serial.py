"""Environments stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from coach.core.errors import CoachError
from coach.core.layout import allocate, as_numpy, assign, named_leaves, observation_layout
from coach.core.source import Episode
from coach.core.spec import Spec
from coach.environments.actions import to_environment
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
        self.num_envs, self.seed, self.first_env = num_envs, seed, first_env
        self.spec = Spec(self.envs[0].observation_space, self.envs[0].action_space)
        self._translate = to_environment(self.spec.action)
        layout = observation_layout(self.spec.observation)
        self._obs = as_numpy(allocate(layout, num_envs))
        self._next = as_numpy(allocate(layout, num_envs))
        self._reward = np.zeros(num_envs, np.float32)
        self._terminated = np.zeros(num_envs, bool)
        self._truncated = np.zeros(num_envs, bool)
        self._plain = not isinstance(self._obs, dict)
        self._episode = [-1] * num_envs
        self._value = [0.0] * num_envs
        self._actions: list[list[NDArray[Any]]] = [[] for _ in range(num_envs)]

    def reset(self) -> Any:
        """Begin an episode in every environment; returns the observations."""
        for i in range(self.num_envs):
            assign(self._obs, i, self._begin(i))
        return self._obs

    def step(self, action: NDArray[Any]) -> Step:
        """Take one action per environment; restart those whose episode ended."""
        action = action.copy()  # rows are kept until the episode's end
        episodes: list[Episode] = []
        plain, reward = self._plain, self._reward
        ended: list[int] = []
        for i, (env, move) in enumerate(zip(self.envs, self._translate(action))):
            obs, gain, terminated, truncated, _ = env.step(move)
            if plain:
                self._next[i] = obs
            else:
                assign(self._next, i, obs)
            reward[i] = gain
            self._value[i] += float(gain)
            self._terminated[i], self._truncated[i] = terminated, truncated
            self._actions[i].append(action[i])
            if terminated or truncated:
                ended.append(i)
        if plain:
            self._obs[...] = self._next
        else:
            assign(self._obs, ..., self._next)
        for i in ended:
            length = len(self._actions[i])
            episodes.append(Episode(self.first_env + i, self._value[i], length))
            assign(self._obs, i, self._begin(i))
        return Step(self._obs, reward, self._terminated, self._truncated, self._next, episodes)

    def state_dict(self) -> dict[str, Any]:
        """Episode numbers, and the actions since each episode began."""
        state: dict[str, Any] = {"episode": list(self._episode)}
        for i, actions in enumerate(self._actions):
            if actions:
                state[f"actions.{i}"] = torch.from_numpy(np.stack(actions))
        for name, leaf in named_leaves(self._obs, "obs").items():
            state[name] = torch.from_numpy(leaf.copy())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Seed every episode again and repeat its actions; returns the observations.

        Raises:
            CoachError: an environment did not come back to the same observation: it is random
                beyond its seed, or keeps something from one episode to the next.
        """
        for i, episode in enumerate(state["episode"]):
            self._episode[i] = episode - 1
            obs = self._begin(i)
            actions = state.get(f"actions.{i}")
            if actions is not None:
                rows = actions.numpy()
                for row, move in zip(rows, self._translate(rows)):
                    obs, gain, *_ = self.envs[i].step(move)
                    self._value[i] += float(gain)
                    self._actions[i].append(row)
            assign(self._obs, i, obs)
        for name, leaf in named_leaves(self._obs, "obs").items():
            # Compared as bytes: the same numbers, not-a-number included.
            saved = state[name].numpy()
            wrong = [i for i in range(self.num_envs) if saved[i].tobytes() != leaf[i].tobytes()]
            if wrong:
                raise CoachError(
                    f"Environment {wrong[0]} did not come back to where it was: repeating its "
                    "episode from the same seed led to another observation.",
                    "Use an environment that is a function of its seed and actions; in place of "
                    "wrappers that keep statistics over episodes (NormalizeObservation), set "
                    "normalize_observations in the network. To continue with fresh episodes, pass "
                    "--set run.restore_environments=false.",
                )
        return self._obs

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def _begin(self, i: int) -> Any:
        self._episode[i] += 1
        self._value[i] = 0.0
        self._actions[i] = []
        obs, _ = self.envs[i].reset(
            seed=episode_seed(self.seed, self.first_env + i, self._episode[i])
        )
        return obs


def episode_seed(seed: int, env_id: int, episode: int) -> int:
    """The seed of one episode: 31 bits from the run's seed, the environment and the count."""
    return int(np.random.SeedSequence((seed, env_id, episode)).generate_state(1)[0] >> 1)
