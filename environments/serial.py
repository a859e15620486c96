"""Environments stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from coach.core.errors import FailedEnvironmentError
from coach.core.layout import assigner, named_leaves
from coach.core.source import Episode
from coach.core.spec import Spec
from coach.environments.actions import to_environment
from coach.environments.arrays import EnvArrays
from coach.environments.calls import NOT_OF_ENVIRONMENTS, close, environment_name, failure
from coach.environments.history import History, can_repeat, check_restored, taken
from coach.environments.vector import Step, VectorEnv
from numpy.typing import NDArray


class SerialEnvs(VectorEnv):
    """``num_envs`` environments in a loop; see `VectorEnv`.

    Args:
        factory: makes one environment.
        num_envs: how many.
        seed: of the run; episodes derive theirs from it.
        first_env: global id of the first environment.
        arrays: where to write; left out, arrays of its own.
        max_steps: of an episode, which is then cut as by a time limit.
    """

    def __init__(
        self,
        factory: Callable[[], gym.Env[Any, Any]],
        num_envs: int,
        seed: int,
        first_env: int = 0,
        arrays: EnvArrays | None = None,
        max_steps: int | None = None,
    ) -> None:
        self.envs: list[gym.Env[Any, Any]] = []
        try:
            for _ in range(num_envs):
                self.envs.append(factory())
        except BaseException:
            self.close()  # others may need what they hold
            raise
        self.max_steps = max_steps
        self.num_envs, self.first_env = num_envs, first_env
        self.spec = Spec(self.envs[0].observation_space, self.envs[0].action_space)
        self.arrays = arrays or EnvArrays.allocate(self.spec, num_envs)
        self._history = History(num_envs, seed, first_env)
        self._value = [0.0] * num_envs
        self._translate, self._assign = to_environment(self.spec.action), assigner(self.arrays.obs)

    @property
    def episode(self) -> list[int]:
        """Number of every environment's episode, from 0."""
        return self._history.episode

    def reset(self) -> Any:
        """Begin an episode in every environment; returns the observations."""
        for i in range(self.num_envs):
            self._begin(i)
        return self.arrays.obs

    def step(self, action: NDArray[Any]) -> Step:
        """Take one action per environment; restart those whose episode ended.

        Raises:
            FailedEnvironmentError: one of them raised something.
        """
        arrays, value, assign = self.arrays, self._value, self._assign
        ended: list[int] = []
        cut: list[int] = []
        max_steps = self.max_steps
        self._history.record(action)  # before an environment can write into it
        for i, (env, move) in enumerate(zip(self.envs, self._translate(action))):
            try:
                obs, reward, terminated, truncated, _ = env.step(move)
            except BaseException as error:
                raise self._failure(i, "step", error, self._history.length(i)) from error
            assign(arrays.next_obs, i, obs)
            arrays.reward[i] = reward
            arrays.terminated[i], arrays.truncated[i] = terminated, truncated
            value[i] += float(reward)
            if terminated or truncated:
                ended.append(i)
            elif max_steps is not None and self._history.length(i) >= max_steps:
                arrays.truncated[i] = True
                ended.append(i)
                cut.append(i)
        assign(arrays.obs, ..., arrays.next_obs)
        episodes = []
        for i in ended:
            arrays.value[i] = value[i]
            length = self._history.length(i)
            episodes.append(Episode(self.first_env + i, value[i], length, i in cut))
            self._begin(i)
        return arrays.step(episodes)

    def state_dict(self) -> dict[str, Any]:
        """The history of unfinished episodes, and the observations they have come to."""
        leaves = named_leaves(self.arrays.obs, "obs").items()
        return self._history.state_dict() | {k: torch.from_numpy(v.copy()) for k, v in leaves}

    def load_state_dict(self, state: dict[str, Any], repeat: bool = True) -> Any:
        """Repeat every unfinished episode, or begin the next ones; returns the observations.

        Raises:
            CoachError: an environment did not come back to the same observation.
        """
        if not (repeat and can_repeat(state)):
            self._history.episode = list(state["episode"])
            return self.reset()
        self._history.load_state_dict(state)
        for i in range(self.num_envs):
            episodes = taken(state, i)
            for back, actions in zip(reversed(range(len(episodes))), episodes):
                self._reset(i, self._history.seed_of(i, back))
                self._repeat(i, actions)
            for name, leaf in named_leaves(self.arrays.obs, "obs").items():
                if name in state:
                    check_restored(self.first_env + i, state[name].numpy()[i], leaf[i])
        return self.arrays.obs

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            close(env)

    def _begin(self, i: int) -> None:
        continues = self.arrays.continues[i] = _continues(self.envs[i])
        self._reset(i, self._history.begin(i, continues))

    def _reset(self, i: int, seed: int) -> None:
        self._value[i] = 0.0
        try:
            obs, _ = self.envs[i].reset(seed=seed)
        except BaseException as error:
            raise self._failure(i, "reset", error) from error
        self._assign(self.arrays.obs, i, obs)

    def _repeat(self, i: int, actions: NDArray[Any]) -> None:
        for step, move in enumerate(self._translate(actions) if len(actions) else ()):
            try:
                obs, reward, *_ = self.envs[i].step(move)
            except BaseException as error:
                raise self._failure(i, "step", error, step + 1) from error
            self._value[i] += float(reward)
            self._assign(self.arrays.obs, i, obs)

    def _failure(
        self, i: int, doing: str, error: BaseException, step: int | None = None
    ) -> FailedEnvironmentError:
        """The error to raise for what environment ``i`` raised, in step ``step`` of its episode."""
        if isinstance(error, NOT_OF_ENVIRONMENTS):
            raise error
        name, env_id = environment_name(self.envs[i]), self.first_env + i
        return failure(name, doing, error, env_id, self._history.episode[i], step)


def _continues(env: Any) -> bool:
    """Whether the next reset goes on where the episode ended, as a game after a lost life."""
    return bool(getattr(getattr(env, "unwrapped", env), "continues_at_reset", False))
