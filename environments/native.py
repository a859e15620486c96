"""Native vector environments as ours, and one of their lanes as a single environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.batch import map_tree
from coach.core.errors import CoachError
from coach.core.layout import assign
from coach.core.source import Episode, Notice
from coach.core.spec import AnySpace
from coach.environments.actions import to_environment
from coach.environments.arrays import EnvArrays
from coach.environments.checks import (
    Misfit,
    as_reward,
    finite,
    store_flags,
    store_rewards,
)
from coach.environments.history import episode_seed
from coach.environments.lanes import Lanes
from coach.environments.observation_check import ObservationCheck
from coach.environments.vector import Step, VectorEnv
from gymnasium import spaces
from numpy.typing import NDArray

_FIRST = 8  # steps whose observations are compared with their bounds


class NativeEnvs(VectorEnv):
    """The environments of a native library; see `VectorEnv`.

    They are seeded together, once: from the run's seed, the id of the first and the number of its
    episode. Later episodes go on from there, so the same seed and the same actions give the same
    run, but no episode can be begun on its own. After an interruption fresh episodes begin,
    whatever was asked for: `restorable` is False.

    Args:
        lanes: the library's environments.
        seed: of the run.
        first_env: global id of the first environment.
        arrays: where to write; left out, arrays of its own.
        name: of the environment, in messages.
    """

    restorable = False

    def __init__(
        self,
        lanes: Lanes,
        seed: int,
        first_env: int = 0,
        arrays: EnvArrays | None = None,
        name: str = "The environment",
    ) -> None:
        self.lanes, self.spec, self.num_envs = lanes, lanes.spec, lanes.num_envs
        self.seed, self.first_env = seed, first_env
        self.arrays = arrays or EnvArrays.allocate(self.spec, self.num_envs)
        self._episode = [-1] * self.num_envs
        self._value = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)
        self._translate = _to_lanes(self.spec.action)
        self.name = name
        self._check = ObservationCheck(self.spec.observation, lead=(self.num_envs,))
        self._led_fine = self._check.watch(self.arrays.next_obs)
        self._rewards_fine = finite(self.arrays.reward)
        self._began_fine = self._check.watch(self.arrays.obs)
        self._notices: list[Notice] = []
        self._steps = 0

    @property
    def episode(self) -> list[int]:
        """Number of every environment's episode, from 0."""
        return self._episode

    def reset(self) -> Any:
        """Begin an episode in every environment; returns the observations.

        Raises:
            BadValueError: one of them returned something that cannot be used.
        """
        self._episode = [number + 1 for number in self._episode]
        self._value[:], self._length[:] = 0.0, 0
        # Lanes get consecutive seeds from it, which must stay within 31 bits.
        seed = episode_seed(self.seed, self.first_env, max(self._episode)) >> 1
        led_to = self.lanes.reset(seed)
        try:
            self._check.store(self.arrays.obs, ..., led_to)
        except Misfit as misfit:
            raise misfit.at(self.name, "reset", self.first_env, max(self._episode), 0) from misfit
        if not self._began_fine():
            self._raise_bad("reset", self.arrays.obs, led_to)
        self._look_at_bounds(self.arrays.obs)
        return self.arrays.obs

    def step(self, action: NDArray[Any]) -> Step:
        """Take one action per environment; restart those whose episode ended.

        Raises:
            BadValueError: one of them returned something that cannot be used.
            NotFiniteError: the agent's own action is to blame for that.
        """
        arrays = self.arrays
        led_to, reward, terminated, truncated = self.lanes.step(self._translate(action))
        self._length += 1
        try:
            self._check.store(arrays.next_obs, ..., led_to)
            store_flags("terminated", arrays.terminated, terminated)
            store_flags("truncated", arrays.truncated, truncated)
            store_rewards(arrays.reward, reward)
            if not self._rewards_fine():
                row = int(np.argmin(np.isfinite(arrays.reward)))
                as_reward(reward[row], row)
        except Misfit as misfit:
            raise self._error(misfit, "step", misfit.row, action[misfit.row]) from misfit
        if not self._led_fine():
            self._raise_bad("step", arrays.next_obs, led_to, action)
        assign(arrays.obs, ..., arrays.next_obs)
        self._steps += 1
        if self._steps <= _FIRST:
            self._look_at_bounds(arrays.next_obs)
        self._value += arrays.reward
        ended = np.flatnonzero(arrays.terminated | arrays.truncated)
        return arrays.step(self._restart(ended) if len(ended) else [])

    def notices(self) -> list[Notice]:
        """Observations outside their bounds, since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def state_dict(self) -> dict[str, Any]:
        """The numbers of the episodes."""
        return {"episode": list(self._episode)}

    def load_state_dict(self, state: dict[str, Any], repeat: bool = True) -> Any:
        """Begin the next episodes, also with ``repeat``; returns the observations."""
        self._episode = list(state["episode"])
        return self.reset()

    def unfinished(self, i: int) -> Episode:
        """The episode that environment ``i`` is in, as far as it has come."""
        return Episode(self.first_env + i, float(self._value[i]), int(self._length[i]), cut=True)

    def close(self) -> None:
        """Close the environments."""
        self.lanes.close()

    def _restart(self, ended: NDArray[np.intp]) -> list[Episode]:
        arrays, episodes = self.arrays, []
        began = self.lanes.begin(ended)
        assign(arrays.obs, ended, began)
        if not self._began_fine():
            self._raise_bad("reset", arrays.obs, arrays.obs)
        arrays.value[ended] = self._value[ended]
        for i in ended.tolist():
            value, length = float(self._value[i]), int(self._length[i])
            episodes.append(Episode(self.first_env + i, value, length))
            self._episode[i] += 1
        self._value[ended], self._length[ended] = 0.0, 0
        return episodes

    def _raise_bad(
        self, call: str, stored: Any, given: Any, action: NDArray[Any] | None = None
    ) -> None:
        """Raise the error for the first environment whose stored observation cannot be used."""
        for row in range(self.num_envs):
            try:
                self._check.look(stored, row, map_tree(lambda leaf, at=row: leaf[at], given))
            except Misfit as misfit:
                acted = None if action is None else action[row]
                raise self._error(misfit, call, row, acted) from misfit

    def _error(
        self, misfit: Misfit, call: str, row: int, action: NDArray[Any] | None = None
    ) -> CoachError:
        step = int(self._length[row]) if call == "step" else 0
        return misfit.at(self.name, call, self.first_env + row, self._episode[row], step, action)

    def _look_at_bounds(self, rows: Any) -> None:
        self._notices += [
            Notice(f"{self.name}: {bounds.text}", bounds.key)
            for bounds in self._check.outside(rows)
        ]


class NativeEnv(gym.Env[Any, Any]):
    """One native environment as a single one, with the same spaces; slow, for trying things out.

    Args:
        lanes: of one environment.
        render_mode: ``rgb_array`` where the library can, or none.
    """

    def __init__(self, lanes: Lanes, render_mode: str | None = None) -> None:
        self.lanes, self.render_mode = lanes, render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
        self.observation_space, self.action_space = lanes.spec.observation, lanes.spec.action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return _first(self.lanes.reset(int(self.np_random.integers(2**30)))), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        moves = np.asarray(action, self.action_space.dtype)[None]
        obs, reward, terminated, truncated = self.lanes.step(moves)
        return _first(obs), float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        """A picture ``[height, width, 3]`` uint8; nothing without a ``render_mode``."""
        return self.lanes.render()[0] if self.render_mode else None

    def close(self) -> None:
        self.lanes.close()


def _to_lanes(space: AnySpace) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A function from an agent's actions ``[N, ...]`` to those of native environments."""
    if isinstance(space, spaces.Discrete):
        start, form = space.start, space.dtype
        return lambda action: (action + start).astype(form, copy=False)
    translate = to_environment(space)
    return lambda action: np.stack(translate(action))


def _first(tree: Any) -> Any:
    return map_tree(lambda leaf: np.array(leaf[0]), tree)
