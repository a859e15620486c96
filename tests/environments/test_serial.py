"""Stepping environments: restarts, final observations, seeds, and coming back."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.core.errors import CoachError
from coach.environments.actions import to_environment
from coach.environments.corners import Corners
from coach.environments.history import episode_seed
from coach.environments.serial import SerialEnvs
from gymnasium import spaces


class Counting(gym.Env[Any, Any]):
    """Counts its steps; ends after three by a time limit, or at once by action 1."""

    observation_space = spaces.Box(-1, 1000, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.mark = 0, float(self.np_random.integers(1000))
        return np.array([0.0, self.mark]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        obs = np.array([float(self.steps), self.mark])
        return obs, 1.0, action == 1, self.steps == 3, {}


class Forgetful(Counting):
    """Draws from something that its seed does not reach."""

    drawn = 0.0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, *rest = super().step(action)
        Forgetful.drawn += 1
        return (np.array([obs[0], Forgetful.drawn]), *rest)


def test_an_ended_episode_restarts_within_the_step() -> None:
    envs = SerialEnvs(Counting, 1, seed=0)
    first = envs.reset()[0, 1]
    for number in (1, 2):
        step = envs.step(np.array([0]))
        assert step.obs[0].tolist() == step.next_obs[0].tolist() == [number, first]
    step = envs.step(np.array([0]))
    assert (step.terminated[0], step.truncated[0]) == (False, True)
    assert step.next_obs[0].tolist() == [3, first], "the true final observation"
    assert step.obs[0, 0] == 0
    assert [(e.env_id, e.value, e.length) for e in step.episodes] == [(0, 3.0, 3)]
    step = envs.step(np.array([1]))
    assert (step.terminated[0], step.truncated[0]) == (True, False)


def test_float64_is_stored_as_float32() -> None:
    assert SerialEnvs(Counting, 1, seed=0).reset().dtype == np.float32


def test_an_environment_does_not_depend_on_its_neighbours() -> None:
    def marks(count: int, first: int = 0) -> list[list[float]]:
        envs = SerialEnvs(Counting, count, seed=7, first_env=first)
        seen = [envs.reset()[:, 1].tolist()]
        for _ in range(7):
            seen.append(envs.step(np.zeros(count, np.int64)).obs[:, 1].tolist())
        return [list(column) for column in zip(*seen)]

    assert marks(4)[:2] == marks(2)
    assert marks(4)[2:] == marks(2, first=2)
    assert marks(4)[0] != marks(4)[1]


def test_every_episode_has_a_seed_of_its_own() -> None:
    seeds = {episode_seed(1, env, number) for env in range(20) for number in range(50)}
    assert len(seeds) == 1_000
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert episode_seed(1, 2, 3) != episode_seed(2, 2, 3)


@pytest.mark.parametrize("make", [lambda: gym.make("CartPole-v1"), lambda: gym.make("Pendulum-v1"), Corners])  # fmt: skip
def test_environments_come_back_in_the_middle_of_episodes(make: Any) -> None:
    def actions(space: spaces.Space[Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
        if isinstance(space, spaces.Discrete):
            return rng.integers(int(space.n), size=3)
        return rng.uniform(-2, 2, size=(3, 1)).astype(np.float32)

    first = SerialEnvs(make, 3, seed=5)
    first.reset()
    rng = np.random.default_rng(0)
    for _ in range(70):
        first.step(actions(first.spec.action, rng))
    second = SerialEnvs(make, 3, seed=5)
    second.load_state_dict(first.state_dict())
    for _ in range(70):
        action = actions(first.spec.action, rng)
        one, two = first.step(action), second.step(action)
        for mine, theirs in ((one.obs, two.obs), (one.next_obs, two.next_obs)):
            if isinstance(mine, dict):
                assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
            else:
                assert np.array_equal(mine, theirs)
        assert one.episodes == two.episodes


def test_an_environment_that_does_not_come_back_is_named() -> None:
    first = SerialEnvs(Forgetful, 2, seed=5)
    first.reset()
    first.step(np.array([0, 0]))
    with pytest.raises(CoachError, match=r"did not come back.*\n.*restore_environments=false"):
        SerialEnvs(Forgetful, 2, seed=5).load_state_dict(first.state_dict())


@pytest.mark.parametrize(
    ("space", "given", "wanted"),
    [
        (spaces.Discrete(3, start=5), [0, 2], [5, 7]),
        (spaces.Discrete(3), [0, 2], [0, 2]),
        (spaces.Box(-1, 2, (2,)), [[-3.0, 3.0]], [[-1.0, 2.0]]),
        (spaces.Box(-1, 1, (2, 2)), [[0.0, 0.5, 2.0, -2.0]], [[[0.0, 0.5], [1.0, -1.0]]]),
        (spaces.MultiDiscrete([3, 4], start=[1, 0]), [[0, 3]], [[1, 3]]),
        (spaces.MultiBinary(3), [[0, 1, 1]], [[0, 1, 1]]),
        (spaces.MultiBinary((2, 2)), [[0, 1, 1, 0]], [[[0, 1], [1, 0]]]),
    ],
)
def test_actions_take_the_form_of_the_space(
    space: spaces.Space[Any], given: Any, wanted: Any
) -> None:
    moves = to_environment(space)(np.array(given))
    assert [np.asarray(move).tolist() for move in moves] == wanted
    for move in moves:
        assert space.contains(move)


def test_state_is_tensors_and_json() -> None:
    envs = SerialEnvs(Corners, 2, seed=0)
    envs.reset()
    envs.step(np.array([0, 1]))
    state = envs.state_dict()
    assert state["episode"] == [0, 0]
    assert isinstance(state["actions.0"], torch.Tensor)
    assert state["obs.position"].shape == (2, 2)
