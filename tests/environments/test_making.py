"""Making environments from settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from coach.core.errors import CoachError, SettingError
from coach.core.registry import entries
from coach.environments.making import EnvironmentSettings
from gymnasium.utils.env_checker import check_env


def test_wrappers_are_put_on_in_order() -> None:
    settings = EnvironmentSettings(
        "CartPole-v1",
        wrappers=["FlattenObservation", {"FrameStackObservation": {"stack_size": 3}}],
    )
    env = settings.make()
    assert isinstance(env, gym.wrappers.FrameStackObservation)
    assert env.observation_space.shape == (3, 4)


SPACELESS = """
import gymnasium as gym


class Bare(gym.Env):
    def reset(self, *, seed=None, options=None):
        return 0, {}


class Half(Bare):
    observation_space = gym.spaces.Discrete(4)


class Texts(Half):
    action_space = ["left", "right"]


class Mended(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gym.spaces.Discrete(4)
        self.action_space = gym.spaces.Discrete(2)
"""


@pytest.mark.parametrize(
    ("name", "wrappers", "words"),
    [
        ("Bare", [], r"Bare sets no observation_space.*\n.*self\.observation_space"),
        ("Half", [], r"Half sets no action_space.*\n.*self\.action_space"),
        ("Half", ["FlattenObservation"], "Half sets no action_space"),
        ("Bare", ["FlattenObservation"], "Bare sets no observation_space"),
        ("Texts", [], r"Texts sets \['left', 'right'\] as its action_space"),
    ],
)
def test_an_environment_without_spaces_is_refused_by_name(
    tmp_path: Path, name: str, wrappers: list[str | dict[str, Any]], words: str
) -> None:
    file = tmp_path / "spaceless.py"
    file.write_text(SPACELESS)
    with pytest.raises(SettingError, match=words):
        EnvironmentSettings(f"{file}:{name}", wrappers=wrappers).make()


def test_a_wrapper_may_set_the_spaces(tmp_path: Path) -> None:
    file = tmp_path / "spaceless.py"
    file.write_text(SPACELESS)
    env = EnvironmentSettings(f"{file}:Bare", wrappers=[f"{file}:Mended"]).make()
    assert env.action_space == gym.spaces.Discrete(2)


def test_the_time_limit_can_be_set_shorter_and_longer() -> None:
    def steps(limit: int) -> int:
        env = EnvironmentSettings("Pendulum-v1", max_episode_steps=limit).make()
        env.reset(seed=0)
        for number in range(1, 1_000):
            *_, truncated, _ = env.step(env.action_space.sample())
            if truncated:
                return number
        return 0

    assert steps(7) == 7
    assert steps(300) == 300


def test_arguments_reach_the_environment_and_are_not_shared() -> None:
    kwargs = {"g": 5.0}
    settings = EnvironmentSettings("Pendulum-v1", kwargs=kwargs)
    assert settings.make().unwrapped.g == 5.0  # type: ignore[attr-defined]
    assert EnvironmentSettings("corners", kwargs={"size": 5}).make().size == 5  # type: ignore[attr-defined]


def test_the_policy_may_be_judged_with_other_arguments() -> None:
    settings = EnvironmentSettings(
        "Pendulum-v1", {"g": 5.0, "render_mode": None}, evaluation_kwargs={"g": 9.0}
    )
    assert settings.make().unwrapped.g == 5.0  # type: ignore[attr-defined]
    assert settings.judging().make().unwrapped.g == 9.0  # type: ignore[attr-defined]
    assert settings.judging().kwargs["render_mode"] is None
    (judged,) = settings.judging().vector(1, 0).envs  # type: ignore[attr-defined]
    assert judged.unwrapped.g == 9.0


def test_environments_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_envs.py").write_text(
        "from coach.environments.corners import Corners\nclass Mine(Corners):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert type(EnvironmentSettings("my_envs:Mine").make()).__name__ == "Mine"
    assert type(EnvironmentSettings(f"{tmp_path}/my_envs.py:Mine").make()).__name__ == "Mine"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"id": "CartPole-v7"}, ["environment.id", "v7"]),
        ({"id": "CartPoel-v1"}, ["'CartPole-v1'"]),
        ({"id": "CartPole-v1", "kwargs": {"foo": 1}}, ["foo", "environment.kwargs"]),
        ({"id": "corners", "kwargs": {"sise": 1}}, ["environment.kwargs.sise", "'size'"]),
        ({"id": "CartPole-v1", "wrappers": ["TimeLimt"]}, ["wrappers[0]", "'TimeLimit'"]),
        ({"id": "CartPole-v1", "wrappers": [{"TimeLimit": {"steps": 3}}]}, ["wrappers[0]", "steps"]),
        ({"id": "CartPole-v1", "wrappers": [{"a": 1, "b": 2}]}, ["wrappers[0]", "Name:"]),
        ({"id": "no_such_module:Env"}, ["no_such_module"]),
        ({"id": "coach.environments.corners:Cornes"}, ["'Corners'"]),
        ({"id": "coach.core.spec:Spec"}, ["no gymnasium.Env"]),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_explained(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CoachError) as raised:
        EnvironmentSettings(**settings).make()
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("HalfCheetah-v5", "mujoco", "mujoco"),
        ("LunarLander-v3", "Box2D", "box2d"),
    ],
)
def test_a_missing_package_gives_the_command(
    env_id: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.")]:
        if "mujoco" in name or "box2d" in name:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingError, match=rf"pip install 'coach-rl\[{extra}\]'"):
        EnvironmentSettings(env_id).make()


@pytest.mark.parametrize("name", [entry.name for entry in entries("environment")])
def test_our_own_pass_gymnasiums_checker(name: str) -> None:
    check_env(EnvironmentSettings(name).make(), skip_render_check=True)


@pytest.mark.parametrize("name", [entry.name for entry in entries("environment")])
def test_our_own_are_a_function_of_seed_and_actions(name: str) -> None:
    def played() -> list[Any]:
        env = EnvironmentSettings(name).make()
        env.action_space.seed(0)
        seen: list[Any] = [env.reset(seed=3)]
        for _ in range(20):
            seen.append(env.step(env.action_space.sample()))
        return seen

    assert repr(played()) == repr(played())
