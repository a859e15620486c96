"""Environments that are stepped together in native code, behind one interface."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from coach.core.batch import leaves, map_tree
from coach.core.errors import SettingError, nearest
from coach.core.layout import assign
from coach.core.spec import Spec
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

#: Where a step led ``[N, ...]``, rewards, terminated and truncated ``[N]``.
Outcome: TypeAlias = tuple[Any, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]

_PYTHON = "Remove environment.backend: python, the default, serves every environment."


class Lanes(Protocol):
    """``N`` environments which step together and begin episodes one by one.

    Libraries begin the next episode when they see fit: in the step that ends one, in the step
    after, or when told. Here it is always two calls: a step leads to the true final observation,
    and `begin` gives the first observations of what follows.
    """

    spec: Spec
    num_envs: int

    def reset(self, seed: int) -> Any:
        """Begin an episode in every lane; what follows is a function of ``seed`` and actions."""

    def step(self, action: NDArray[Any]) -> Outcome:
        """Take one action per lane, in the form of the environment."""

    def begin(self, ended: NDArray[np.intp]) -> Any:
        """First observations ``[len(ended), ...]`` of the lanes whose episode just ended."""

    def render(self) -> Any:
        """A picture of every lane."""

    def close(self) -> None:
        """Release them."""


class GymnasiumLanes:
    """Around a vector environment that comes with a Gymnasium id (its ``vector_entry_point``).

    Args:
        env: the vector environment, in any of Gymnasium's three autoreset modes.

    Raises:
        SettingError: it cannot begin the episode of one lane while the others wait.
    """

    def __init__(self, env: Any) -> None:
        self.env, self.num_envs = env, env.num_envs
        self.spec = Spec(env.single_observation_space, env.single_action_space)
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._began: Any = None
        if self.mode is AutoresetMode.NEXT_STEP and not isinstance(
            env.unwrapped, CartPoleVectorEnv
        ):
            self._require_partial_resets()

    def reset(self, seed: int) -> Any:
        return self.env.reset(seed=seed)[0]

    def step(self, action: NDArray[Any]) -> Outcome:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.mode is AutoresetMode.SAME_STEP:
            ended = np.flatnonzero(terminated | truncated)
            if len(ended):
                self._began = map_tree(lambda leaf: leaf[ended], obs)  # a copy
                obs = map_tree(np.copy, obs)
                for i in ended.tolist():
                    assign(obs, i, _row(info["final_obs"], i))
        return obs, reward, terminated, truncated

    def begin(self, ended: NDArray[np.intp]) -> Any:
        if self.mode is AutoresetMode.SAME_STEP:
            return self._began
        if isinstance(self.env.unwrapped, CartPoleVectorEnv):
            return _begin_cartpole(self.env.unwrapped, ended)
        return map_tree(lambda leaf: leaf[ended], self._reset_some(ended))

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def _reset_some(self, which: NDArray[np.intp]) -> Any:
        if self.num_envs == 1:
            return self.env.reset()[0]
        mask = np.zeros(self.num_envs, np.bool_)
        mask[which] = True
        return self.env.reset(options={"reset_mask": mask})[0]

    def _require_partial_resets(self) -> None:
        """Without them an episode begins only in the step after, whose action is ignored."""
        if self.num_envs == 1:
            return
        self.env.reset(seed=0)
        self.env.action_space.seed(0)
        before = map_tree(np.copy, self.env.step(self.env.action_space.sample())[0])
        after = self._reset_some(np.array([0]))
        for (_, one), (_, two) in zip(leaves(before), leaves(after)):
            if not np.array_equal(one[1:], two[1:]):
                raise SettingError(
                    "environment.backend",
                    f"{type(self.env.unwrapped).__name__} cannot begin the episode of one "
                    "environment while the others wait (options 'reset_mask')",
                    _PYTHON,
                )


class EnvPoolLanes:
    """Around an EnvPool, which is made anew for every seed, as it takes none later.

    Args:
        id: EnvPool's own, such as ``Pong-v5``.
        num_envs: lanes.
        threads: that step them.
        kwargs: of the environment.
    """

    def __init__(self, id: str, num_envs: int, threads: int, kwargs: dict[str, Any]) -> None:
        self._envpool = importlib.import_module("envpool")
        known = self._envpool.list_all_envs()
        if id not in known:
            raise SettingError("environment.id", f"EnvPool has no '{id}'", nearest(id, known))
        self.id, self.num_envs = id, num_envs
        self.kwargs = {"num_threads": threads, **kwargs}
        config = {name: value for name, value in kwargs.items() if name != "render_mode"}
        spec = self._envpool.make_spec(id, **config)
        self.spec = Spec(spec.gymnasium_observation_space, spec.gymnasium_action_space)
        self._pool: Any = None

    def reset(self, seed: int) -> Any:
        self.close()
        self._pool = self._envpool.make(
            self.id, env_type="gymnasium", num_envs=self.num_envs, seed=seed, **self.kwargs
        )
        return self._pool.reset()[0]

    def step(self, action: NDArray[Any]) -> Outcome:
        outcome: Outcome = self._pool.step(action)[:4]
        return outcome

    def begin(self, ended: NDArray[np.intp]) -> Any:
        # In time: otherwise the pool would begin them in the next step and ignore its actions.
        return self._pool.reset(ended.astype(np.int32))[0]

    def render(self) -> Any:
        return self._pool.render(np.arange(self.num_envs))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = None


def gymnasium_lanes(
    id: str, num_envs: int, threads: int, kwargs: dict[str, Any], max_episode_steps: int | None
) -> GymnasiumLanes:
    """The vector environment that comes with a Gymnasium id, restarting as early as it can.

    Raises:
        SettingError: the id has none, or it takes no time limit in steps.
    """
    entry = gym.spec(id).vector_entry_point
    if entry is None:
        raise SettingError(
            "environment.backend",
            f"{id} comes without a vector environment; CartPole-v1 and ALE/... have one",
            _PYTHON,
        )
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    takes = inspect.signature(creator).parameters
    offered: dict[str, Any] = {"num_threads": threads, "autoreset_mode": AutoresetMode.SAME_STEP}
    if "render_mode" in kwargs and "render_mode" not in takes:
        raise SettingError(
            "environment.backend", f"the vector environment of {id} gives no pictures", _PYTHON
        )
    if max_episode_steps is not None:
        if "max_episode_steps" not in takes:
            raise SettingError(
                "environment.max_episode_steps",
                f"the vector environment of {id} takes no time limit in steps",
                "Set the one it has in environment.kwargs: max_num_frames_per_episode for ALE/...",
            )
        offered["max_episode_steps"] = max_episode_steps
    chosen = {name: value for name, value in offered.items() if name in takes}
    env = gym.make_vec(
        id, num_envs=num_envs, vectorization_mode="vector_entry_point", **(chosen | kwargs)
    )
    return GymnasiumLanes(env)


def _begin_cartpole(env: Any, ended: NDArray[np.intp]) -> Any:
    # Gymnasium's CartPole would do the same in its next step, too late for the action of that step.
    env.state[:, ended] = env.np_random.uniform(env.low, env.high, (4, len(ended)))
    env.steps[ended] = 0
    env.prev_done[ended] = False
    obs: NDArray[np.float32] = env.state.T[ended].astype(np.float32)
    return obs


def _row(tree: Any, i: int) -> Any:
    """Lane ``i`` of final observations, which come as arrays or as arrays of objects."""
    return map_tree(lambda leaf: leaf[i], tree)
