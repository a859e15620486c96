"""Environments stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from coach.core.batch import map_tree
from coach.core.errors import BadValueError, CoachError, NotFiniteError
from coach.core.layout import assigner, named_leaves
from coach.core.source import Episode, Notice
from coach.core.spec import Spec
from coach.environments.actions import to_environment
from coach.environments.arrays import EnvArrays
from coach.environments.calls import NOT_OF_ENVIRONMENTS, close, environment_name, failure
from coach.environments.checks import (
    LARGEST,
    NUMBERS,
    Misfit,
    as_flag,
    as_misfit,
    as_outcome,
    as_reset,
    as_reward,
    explained,
)
from coach.environments.history import History, can_repeat, check_restored, taken
from coach.environments.observation_check import ObservationCheck
from coach.environments.vector import Step, VectorEnv
from numpy.typing import NDArray

#: Episodes of an environment that may be dropped one after the other.
MOST_DROPPED = 100
#: Observations are compared with their bounds in so many steps first, then in one of so many that
#: end an episode.
_FIRST, _NOW_AND_THEN = 8, 16


class SerialEnvs(VectorEnv):
    """``num_envs`` environments in a loop; see `VectorEnv`.

    What they return is checked, see `coach.environments.checks`.

    Args:
        factory: makes one environment.
        num_envs: how many.
        seed: of the run; episodes derive theirs from it.
        first_env: global id of the first environment.
        arrays: where to write; left out, arrays of its own.
        max_steps: of an episode, which is then cut as by a time limit.
        name: of the environment in messages; left out, its id or class.
        drop: end episodes that have a bad value, rather than raise an error.
    """

    def __init__(
        self,
        factory: Callable[[], gym.Env[Any, Any]],
        num_envs: int,
        seed: int,
        first_env: int = 0,
        arrays: EnvArrays | None = None,
        max_steps: int | None = None,
        name: str = "",
        drop: bool = False,
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
        self.name, self.drop = name or environment_name(self.envs[0]), drop
        self._history = History(num_envs, seed, first_env)
        self._unwrapped = [getattr(env, "unwrapped", env) for env in self.envs]
        self._value = [0.0] * num_envs
        self._translate, self._assign = to_environment(self.spec.action), assigner(self.arrays.obs)
        self._check = ObservationCheck(self.spec.observation)
        self._rows = self._check.rows(self.arrays.next_obs)
        self._fine = self._check.watch(self.arrays.next_obs)
        self._row_fine = [self._check.watch(_row(self.arrays.obs, i)) for i in range(num_envs)]
        self._looks = 0  # at bounds, or chances for one
        self._eventful = True  # so that flags are cleared, which a predecessor may have set
        self._in_a_row = [0] * num_envs  # episodes dropped
        self._notices: list[Notice] = []

    @property
    def episode(self) -> list[int]:
        """Number of every environment's episode, from 0."""
        return self._history.episode

    def reset(self) -> Any:
        """Begin an episode in every environment; returns the observations.

        Raises:
            BadValueError: one of them returned something that cannot be used.
            FailedEnvironmentError: one of them raised something.
        """
        for i in range(self.num_envs):
            self._begin(i)
        return self.arrays.obs

    def step(self, action: NDArray[Any]) -> Step:
        """Take one action per environment; restart those whose episode ended.

        Raises:
            BadValueError: one of them returned something that cannot be used.
            FailedEnvironmentError: one of them raised something.
        """
        arrays, value, next_obs = self.arrays, self._value, self.arrays.next_obs
        given: list[Any] = []
        ended: list[int] = []
        dropped: list[int] = []
        if self._eventful:
            self._clear()
        self._history.record(action)  # before an environment can write into it
        for i, (env, move, row) in enumerate(zip(self.envs, self._translate(action), self._rows)):
            try:
                outcome: Any = env.step(move)
            except BaseException as error:
                raise self._failure(i, "step", error, self._history.length(i)) from error
            try:
                reward: Any  # whatever an environment returns
                obs, reward, terminated, truncated, _ = outcome
                if reward.__class__ not in NUMBERS or not -LARGEST <= reward <= LARGEST:
                    reward = as_reward(reward)
                if row is None:
                    self._check.store(next_obs, i, obs)
                else:
                    try:
                        row[:] = obs  # takes nothing but an array of this type and shape
                    except (TypeError, ValueError):
                        self._rows[i] = None
                        self._check.store(next_obs, i, obs)
                if terminated is not False or truncated is not False:
                    ended += self._note_end(i, terminated, truncated)
            except (Misfit, TypeError, ValueError) as error:
                self._refuse(i, as_misfit(error, outcome), "step", action[i])
                dropped.append(i)
                obs, reward = None, 0.0
            given.append(obs)
            arrays.reward[i] = reward
            value[i] += float(reward)
        if not self._fine():
            dropped += self._find_bad(given, dropped, action)
        self._assign(arrays.obs, ..., next_obs)
        if ended or dropped or self.max_steps is not None:
            return arrays.step(self._end(ended, dropped), len(dropped))
        return arrays.uneventful

    def notices(self) -> list[Notice]:
        """Dropped episodes and observations outside their bounds, since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def state_dict(self) -> dict[str, Any]:
        """The history of unfinished episodes, and the observations they have come to."""
        leaves = named_leaves(self.arrays.obs, "obs").items()
        return self._history.state_dict() | {k: torch.from_numpy(v.copy()) for k, v in leaves}

    def load_state_dict(self, state: dict[str, Any], repeat: bool = True) -> Any:
        """Repeat every unfinished episode, or begin the next ones; returns the observations.

        Raises:
            BadValueError: an environment returned something that cannot be used.
            CoachError: an environment did not come back to the same observation.
        """
        if not (repeat and can_repeat(state)):
            self._history.episode = list(state["episode"])
            return self.reset()
        self._history.load_state_dict(state)
        for i in range(self.num_envs):
            episodes = taken(state, i)
            for back, actions in zip(reversed(range(len(episodes))), episodes):
                try:
                    self._reset(i, self._history.seed_of(i, back))
                except Misfit as misfit:
                    raise self._error(i, misfit, "reset", 0) from misfit
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
        """Begin the next episode of an environment; or the one after, where that one is dropped."""
        while True:
            # Whether it goes on where the episode ended, as a game does after a lost life.
            continues = bool(getattr(self._unwrapped[i], "continues_at_reset", False))
            self.arrays.continues[i] = continues
            try:
                self._reset(i, self._history.begin(i, continues))
            except Misfit as misfit:
                self._refuse(i, misfit, "reset")
            else:
                return

    def _reset(self, i: int, seed: int) -> None:
        """Begin an episode.

        Raises:
            Misfit: what the environment returned cannot be used.
        """
        self._value[i] = 0.0
        try:
            outcome = self.envs[i].reset(seed=seed)
        except BaseException as error:
            raise self._failure(i, "reset", error) from error
        self._keep(i, as_reset(outcome))

    def _repeat(self, i: int, actions: NDArray[Any]) -> None:
        """Take the steps of an unfinished episode again, in which there were no bad values."""
        for step, move in enumerate(self._translate(actions) if len(actions) else ()):
            try:
                outcome = self.envs[i].step(move)
            except BaseException as error:
                raise self._failure(i, "step", error, step + 1) from error
            try:
                obs, reward, *_ = as_outcome(outcome)
                self._value[i] += as_reward(reward)
                self._keep(i, obs)
            except Misfit as misfit:
                raise self._error(i, misfit, "step", step + 1) from misfit

    def _keep(self, i: int, obs: Any) -> None:
        """Store an observation to act on."""
        arrays = self.arrays
        self._check.store(arrays.obs, i, obs)
        if not self._row_fine[i]():
            self._check.look(arrays.obs, i, obs)
        if self._looks < _FIRST:
            self._look_at_bounds(_row(arrays.obs, i))

    def _note_end(self, i: int, terminated: Any, truncated: Any) -> list[int]:
        """Store the flags of environment ``i``; returns it if its episode ended."""
        terminated, truncated = as_flag("terminated", terminated), as_flag("truncated", truncated)
        if not (terminated or truncated):
            return []
        arrays, self._eventful = self.arrays, True
        arrays.terminated[i], arrays.truncated[i] = terminated, truncated
        return [i]

    def _clear(self) -> None:
        """Clear the flags of the last step, and perhaps compare its observations with bounds."""
        arrays = self.arrays
        if self._looks and (self._looks < _FIRST or self._looks % _NOW_AND_THEN == 0):
            self._look_at_bounds(arrays.next_obs)
        self._looks += 1
        self._eventful = self._looks < _FIRST
        arrays.terminated.fill(False)
        arrays.truncated.fill(False)

    def _end(self, ended: list[int], dropped: list[int]) -> list[Episode]:
        """Begin the next episodes; those that were not dropped are reported."""
        arrays, episodes = self.arrays, []
        most, cut = self.max_steps, []
        if most is not None:
            over = [i for i in range(self.num_envs) if self._history.length(i) >= most]
            cut = [i for i in over if i not in ended]
            arrays.truncated[cut] = True
            self._eventful |= bool(cut)
        if self.drop:
            arrays.dropped.fill(False)
        for i in [*ended, *cut]:
            if i not in dropped:
                arrays.value[i] = value = self._value[i]
                length = self._history.length(i)
                episodes.append(Episode(self.first_env + i, value, length, i in cut))
                self._in_a_row[i] = 0
                self._begin(i)
        for i in dropped:
            arrays.terminated[i], arrays.truncated[i], arrays.dropped[i] = False, True, True
            self._eventful = True
            self._begin(i)
        return episodes

    def _look_at_bounds(self, rows: Any) -> None:
        """Say so if observations are outside their bounds."""
        self._notices += [
            Notice(f"{self.name}: {bounds.text}", bounds.key)
            for bounds in self._check.outside(rows)
        ]

    def _find_bad(self, given: list[Any], known: list[int], action: NDArray[Any]) -> list[int]:
        """Environments that returned bad observations, besides those that are known.

        Args:
            given: their observations.
            known: environments whose rows were not written.
            action: what was done.
        """
        bad = []
        for i, obs in enumerate(given):
            if i not in known:
                try:
                    self._check.look(self.arrays.next_obs, i, obs)
                except Misfit as misfit:
                    self._refuse(i, misfit, "step", action[i])
                    bad.append(i)
        return bad

    def _refuse(
        self, i: int, misfit: Misfit, call: str, action: NDArray[Any] | None = None
    ) -> None:
        """Note that an episode is dropped, or raise the error that ends the run.

        Raises:
            BadValueError: episodes are not to be dropped, or that did not help.
            NotFiniteError: the agent's own action is to blame.
        """
        error = self._error(i, misfit, call, action=action)
        if isinstance(error, NotFiniteError):
            raise error from misfit
        if not (self.drop and misfit.passing):
            raise error from misfit
        self._in_a_row[i] += 1
        if self._in_a_row[i] > MOST_DROPPED:
            raise BadValueError(
                f"{MOST_DROPPED} episodes in a row had bad values. The last: {error.problem}",
                "Mend the environment.",
            ) from misfit
        self._notices.append(Notice(f"An episode is dropped: {error.problem}"))

    def _error(
        self,
        i: int,
        misfit: Misfit,
        call: str,
        step: int | None = None,
        action: NDArray[Any] | None = None,
    ) -> BadValueError | NotFiniteError:
        if step is None:
            step = self._history.length(i)
        episode = self._history.episode[i]
        return misfit.at(self.name, call, self.first_env + i, episode, step, action)

    def _failure(
        self, i: int, doing: str, error: BaseException, step: int | None = None
    ) -> CoachError:
        """The error to raise for what environment ``i`` raised, in step ``step`` of its episode."""
        if isinstance(error, NOT_OF_ENVIRONMENTS):
            raise error
        misfit = explained(self.envs[i], doing, error)
        if misfit is not None:
            return self._error(i, misfit, doing, step or 0)
        name, env_id = environment_name(self.envs[i]), self.first_env + i
        return failure(name, doing, error, env_id, self._history.episode[i], step)


def _row(obs: Any, i: int) -> Any:
    """The observations ``[1, ...]`` of environment ``i`` among those of all, sharing memory."""
    return map_tree(lambda rows: rows[i : i + 1], obs)
