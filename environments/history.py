"""What is needed to bring environments back: which episode it is, and the actions taken in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from coach.core.errors import CoachError
from coach.core.source import Episode
from numpy.typing import NDArray


class History:
    """Begins episodes, each with a seed of its own, and remembers the actions of unfinished ones.

    Args:
        envs: the environments.
        seed: of the run.
        first_env: global id of the first environment.
    """

    def __init__(self, envs: list[gym.Env[Any, Any]], seed: int, first_env: int) -> None:
        self.envs, self.seed, self.first_env = envs, seed, first_env
        self.episode = [-1] * len(envs)
        self.value = [0.0] * len(envs)
        self.actions: list[list[NDArray[Any]]] = [[] for _ in envs]

    def begin(self, i: int) -> Any:
        """Reset environment ``i`` for its next episode; returns the first observation."""
        self.episode[i] += 1
        self.value[i], self.actions[i] = 0.0, []
        seed = episode_seed(self.seed, self.first_env + i, self.episode[i])
        return self.envs[i].reset(seed=seed)[0]

    def record(self, i: int, action: NDArray[Any], reward: float) -> None:
        """Note a step; ``action`` is kept, so it must not be changed afterwards."""
        self.value[i] += reward
        self.actions[i].append(action)

    def finished(self, i: int) -> Episode:
        """The episode that just ended."""
        return Episode(self.first_env + i, self.value[i], len(self.actions[i]))

    def state_dict(self) -> dict[str, Any]:
        """Episode numbers, and the actions since each episode began."""
        state: dict[str, Any] = {"episode": list(self.episode)}
        for i, actions in enumerate(self.actions):
            if actions:
                state[f"actions.{i}"] = torch.from_numpy(np.stack(actions))
        return state

    def repeat(
        self,
        state: dict[str, Any],
        translate: Callable[[NDArray[Any]], list[Any]],
        i: int,
    ) -> Any:
        """Seed the episode of environment ``i`` again and repeat its actions.

        Returns:
            The last observation.
        """
        self.episode[i] = state["episode"][i] - 1
        obs = self.begin(i)
        actions = state.get(f"actions.{i}")
        if actions is not None:
            rows = actions.numpy()
            for row, move in zip(rows, translate(rows)):
                obs, reward, *_ = self.envs[i].step(move)
                self.record(i, row, float(reward))
        return obs


def check_restored(i: int, saved: NDArray[Any], now: NDArray[Any]) -> None:
    """Stop unless an environment came back to the observation that it was left with.

    Raises:
        CoachError: it did not: it is random beyond its seed, or keeps something from one episode
            to the next.
    """
    if saved.tobytes() != now.tobytes():  # as bytes: the same numbers, not-a-number included
        raise CoachError(
            f"Environment {i} did not come back to where it was: repeating its episode from the "
            "same seed led to another observation.",
            "Use an environment that is a function of its seed and actions; in place of wrappers "
            "that keep statistics over episodes (NormalizeObservation), set normalize_observations "
            "in the network. To continue with fresh episodes, pass "
            "--set run.restore_environments=false.",
        )


def episode_seed(seed: int, env_id: int, episode: int) -> int:
    """The seed of one episode: 31 bits from the run's seed, the environment and the count."""
    return int(np.random.SeedSequence((seed, env_id, episode)).generate_state(1)[0] >> 1)
