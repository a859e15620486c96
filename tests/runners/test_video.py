"""`coach evaluate --video`: the first episode, or one message that says why not."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from coach.core.errors import CoachError
from coach.environments.making import EnvironmentSettings
from coach.runners import video
from coach.runners.replaying import evaluate_run
from coach.runners.training import Run

HERE = Path(__file__)


class Counter(gym.Env[Any, Any]):
    """Episodes of four steps."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    pictures: Any = NotImplementedError

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.steps = render_mode, 0

    def reset(self, **options: Any) -> Any:
        super().reset(seed=options.get("seed"))
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, self.steps >= 4, False, {}

    def render(self) -> Any:
        if isinstance(self.pictures, type):
            raise self.pictures("no pictures here")
        return self.pictures


class Shown(Counter):
    """Pictures whose brightness is the step."""

    def render(self) -> Any:
        return np.full((6, 10, 3), self.steps, np.uint8)


class Listed(Counter):
    pictures: Any = [np.zeros((4, 4, 3), np.uint8)]  # noqa: RUF012


class Words(Counter):
    pictures = "an ANSI picture"


class Grey(Counter):
    pictures = np.zeros((6, 10), np.uint8)


class Nothing(Counter):
    pictures = None


class NoMode(Counter):
    def __init__(self) -> None:
        super().__init__()


class NoPackage(Counter):
    def render(self) -> Any:
        raise gym.error.DependencyNotInstalled("pygame is not installed, run `pip install pygame`")


class Writer:
    """Keeps the pictures that it is given."""

    written: list[Any]

    def __init__(self) -> None:
        self.written, self.closed = [], False

    def append_data(self, picture: Any) -> None:
        assert not self.closed
        self.written.append(picture)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    made = Writer()
    module = types.SimpleNamespace(get_writer=lambda path, **options: made)
    monkeypatch.setattr(video, "_import_writer", lambda: module)
    return made


def settings(name: str) -> EnvironmentSettings:
    return EnvironmentSettings(id=f"{HERE}:{name}")


def test_the_first_episode_of_a_run_is_written(
    launch: Callable[..., Run], tiny_dqn: dict[str, Any], writer: Writer
) -> None:
    tiny_dqn["environment"] = {"id": f"{HERE}:Shown"}
    run = launch(tiny_dqn)
    run.train()
    played, _ = evaluate_run(run.folder, tiny_dqn, 3, print, video=True)
    assert [episode.length for episode in played] == [4, 4, 4]
    assert [int(picture[0, 0, 0]) for picture in writer.written] == [0, 1, 2, 3, 4]
    assert writer.closed
    assert (run.folder / "videos").is_dir()


@pytest.mark.parametrize("name", ["Shown", "Listed"])
def test_pictures_and_lists_of_them_will_do(name: str, writer: Writer) -> None:
    video.check_video(settings(name))
    assert writer.written == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Counter", "render() raised NotImplementedError"),
        ("Words", "render() returned str"),
        ("Grey", "render() returned ndarray (6, 10)"),
        ("Nothing", "render() returned NoneType"),
        ("NoMode", "cannot be made with render_mode='rgb_array'"),
    ],
)
def test_an_environment_without_pictures_is_one_message(
    name: str, words: str, writer: Writer
) -> None:
    with pytest.raises(CoachError) as caught:
        video.check_video(settings(name))
    assert words in caught.value.problem
    assert caught.value.remedy.startswith("Leave out --video")


def test_our_environments_without_pictures_say_so(writer: Writer) -> None:
    with pytest.raises(CoachError, match="Leave out --video"):
        video.check_video(EnvironmentSettings(id="bit_flip"))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CoachError, match=r"coach-rl\[video\]"):
        video.check_video(settings("NoPackage"))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(CoachError, match=r"the package 'imageio(_ffmpeg)?'.\n.*coach-rl\[video\]"):
        video.check_video(settings("Shown"))


def test_a_real_file_where_the_package_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "folder" / "film.mp4"
    env = video.FirstEpisodeVideo(settings("Shown").make(render_mode="rgb_array"), path)
    env.reset()
    for _ in range(4):
        env.step(0)
    env.close()
    assert path.stat().st_size > 0
