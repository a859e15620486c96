"""Environments with habits that a vector environment must survive."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.core.errors import CoachError, SettingError
from coach.core.schema import build
from coach.environments.making import EnvironmentSettings
from coach.environments.serial import SerialEnvs
from coach.runners.actor import Actor
from gymnasium import spaces
from small_loop import Still


class Reusing(gym.Env[Any, Any]):
    """Hands out its own array, which it changes later; ends by both ways at once.

    Args:
        length: steps per episode.
        begin: what it counts from.
    """

    observation_space = spaces.Dict(
        {"count": spaces.Box(-np.inf, np.inf, (1,), np.float64), "mark": spaces.Discrete(100)}
    )
    action_space = spaces.MultiDiscrete([3, 3], start=[1, -1])

    def __init__(self, length: int = 3, begin: float = 0.0) -> None:
        self.length, self.begin = length, begin
        self.array = np.zeros(1)
        self.actions: list[list[int]] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.array[:] = self.begin
        self.steps, self.mark = 0, int(self.np_random.integers(100))
        return {"count": self.array, "mark": self.mark}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.actions.append(action.tolist())
        self.steps += 1
        self.array += 1
        over = self.steps >= self.length
        return {"count": self.array, "mark": self.mark}, 0.1, over, over, {}


def play(envs: SerialEnvs, steps: int) -> Any:
    for _ in range(steps):
        step = envs.step(np.zeros((envs.num_envs, 2), np.int64))
    return step


def test_arrays_that_an_environment_reuses_are_copied() -> None:
    envs = SerialEnvs(Reusing, 2, seed=0)
    assert envs.reset()["count"].tolist() == [[0], [0]]
    step = play(envs, 3)
    assert step.next_obs["count"].tolist() == [[3], [3]]
    assert step.obs["count"].tolist() == [[0], [0]]
    assert step.terminated.all()
    assert step.truncated.all()
    assert envs.envs[0].actions == [[1, -1]] * 3  # type: ignore[attr-defined]


def test_an_end_by_both_ways_is_terminal() -> None:
    envs = SerialEnvs(Reusing, 2, seed=0)
    fragment = Actor(Still(envs.spec), envs, 6, seed=0).collect()
    assert fragment.boundary[:, 0].tolist() == [False, False, True] * 2
    assert fragment.discount[:, 0].tolist() == [1, 1, 0] * 2
    count = torch.tensor([0, 1, 2, 0, 1, 2.0])
    assert torch.equal(fragment.obs["count"][:, 0, 0], count)
    assert torch.equal(fragment.next_obs["count"][:, 0, 0], count + 1)


def test_episodes_are_told_with_their_global_id() -> None:
    envs = SerialEnvs(Reusing, 2, seed=0, first_env=5)
    envs.reset()
    step = play(envs, 3)
    told = [(episode.env_id, round(episode.value, 6), episode.length) for episode in step.episodes]
    assert told == [(5, 0.3, 3), (6, 0.3, 3)]
    assert play(envs, 1).episodes == ()


def test_steps_without_an_end_are_one_outcome() -> None:
    envs = SerialEnvs(Reusing, 1, seed=0)
    envs.reset()
    first = play(envs, 1)
    assert play(envs, 1) is first
    assert not first.episodes
    assert play(envs, 1).episodes[0].length == 3


def test_the_count_of_episodes_goes_on_after_coming_back() -> None:
    first = SerialEnvs(Reusing, 2, seed=0)
    first.reset()
    play(first, 7)
    second = SerialEnvs(Reusing, 2, seed=0)
    obs = second.load_state_dict(first.state_dict())
    assert obs["count"].tolist() == [[1], [1]]
    # Three more episodes: their marks come from the seeds of episodes 3, 4 and 5.
    for _ in range(9):
        one, two = play(first, 1), play(second, 1)
        assert one.obs["mark"].tolist() == two.obs["mark"].tolist()
        assert one.episodes == two.episodes


def test_coming_back_to_another_environment_is_noticed() -> None:
    first = SerialEnvs(lambda: Reusing(), 2, seed=0)
    first.reset()
    play(first, 1)
    with pytest.raises(CoachError, match="Environment 0 did not come back"):
        SerialEnvs(lambda: Reusing(begin=0.25), 2, seed=0).load_state_dict(first.state_dict())


def test_an_actor_goes_on_in_the_middle_of_an_episode() -> None:
    def actor() -> Actor:
        envs = SerialEnvs(lambda: Reusing(length=5), 2, seed=0)
        return Actor(Still(envs.spec), envs, 3, seed=0)

    first, second = actor(), actor()
    first.collect()
    second.load_state_dict(first.state_dict())
    one, two = first.collect(), second.collect()
    for name in ("count", "mark"):
        assert torch.equal(one.obs[name], two.obs[name])
        assert torch.equal(one.next_obs[name], two.next_obs[name])
    assert second.ctx.step == first.ctx.step == 12


def test_fresh_episodes_after_a_resume_are_not_those_of_the_beginning() -> None:
    """Repeating the seeds of the run's first episodes would show the agent nothing new."""

    def marks(actor: Actor) -> list[int]:
        obs: Any = actor.collect().obs
        return obs["mark"][::3].flatten().tolist()  # type: ignore[no-any-return]

    def actor() -> Actor:
        envs = SerialEnvs(Reusing, 4, seed=0)
        return Actor(Still(envs.spec), envs, 9, seed=0)

    first, second = actor(), actor()
    begun = marks(first)
    second.load_state_dict(first.state_dict(), restore_environments=False)
    assert marks(second) != begun


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_episode_steps": 0}, ["environment.max_episode_steps"]),
        ({"max_episode_steps": -5}, ["environment.max_episode_steps"]),
        ({"max_episode_steps": "soon"}, ["environment.max_episode_steps"]),
        ({"wrapper": ["TimeLimit"]}, ["environment.wrapper", "'wrappers'"]),
        ({"kwargs": ["g"]}, ["environment.kwargs"]),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build(EnvironmentSettings, {"id": "Pendulum-v1", **settings}, "environment")
    for word in words:
        assert word in str(raised.value)


def test_a_wrong_argument_of_a_wrapper_blames_the_wrapper() -> None:
    settings = EnvironmentSettings("Pendulum-v1", wrappers=[{"TimeLimit": {"steps": 3}}])
    with pytest.raises(SettingError, match=r"environment\.wrappers\[0\].*steps") as raised:
        settings.make()
    assert "environment.kwargs" not in str(raised.value)
    assert "environment.wrappers" in raised.value.remedy
