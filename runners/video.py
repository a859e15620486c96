"""Writes a video of an environment's first episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from coach.core.errors import CoachError
from coach.environments.making import EnvironmentSettings
from numpy.typing import NDArray

_FRAMES_PER_SECOND = 30  # unless the environment says


class FirstEpisodeVideo(gym.Wrapper[Any, Any, Any, Any]):
    """Writes the pictures of the first episode to an MP4 file, one by one.

    Args:
        env: made with ``render_mode="rgb_array"``.
        path: of the file; its folder is made.
    """

    def __init__(self, env: gym.Env[Any, Any], path: Path) -> None:
        super().__init__(env)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._episodes = path, 0
        self._writer = _writer(path, float(env.metadata.get("render_fps", _FRAMES_PER_SECOND)))

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._episodes += 1
        if self._episodes > 1:
            self._finish()
        begun = self.env.reset(**options)
        self._write()
        return begun

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        outcome = self.env.step(action)
        self._write()
        return outcome

    def close(self) -> None:
        self._finish()
        self.env.close()

    def _write(self) -> None:
        if self._writer is not None:
            try:
                self._writer.append_data(picture(self.env))
            except OSError as error:
                raise CoachError(f"The video {self.path} cannot be written: {error}") from error

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def picture(env: gym.Env[Any, Any]) -> NDArray[np.uint8]:
    """What an environment shows, ``[height, width, 3]`` bytes.

    Raises:
        CoachError: it shows nothing, or something else.
    """
    shown: Any
    try:
        shown = env.render()
    except Exception as error:
        words = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise _not_shown(env, f"render() raised {words}") from error
    if isinstance(shown, list) and shown:  # rgb_array_list: the pictures since the last call
        shown = shown[-1]
    if not isinstance(shown, np.ndarray) or shown.ndim != 3 or shown.shape[-1] != 3:
        what = f"{type(shown).__name__} {getattr(shown, 'shape', '')}".strip()
        raise _not_shown(env, f"render() returned {what}, not an array [height, width, 3]")
    return np.ascontiguousarray(shown, dtype=np.uint8)


def check_video(environment: EnvironmentSettings) -> None:
    """Refuse a video that cannot be made, before anything is played.

    Raises:
        CoachError: the environment has no pictures, or a package is missing.
    """
    try:
        env = environment.make(render_mode="rgb_array")
    except CoachError as error:
        words = error.problem.split("\n")[0]
        raise CoachError(
            f"{environment.id} cannot be made with render_mode='rgb_array', which a video needs: "
            f"{words}",
            error.remedy if "pip install" in error.remedy else _REMEDY,
        ) from error
    try:
        env.reset(seed=0)
        picture(env)
    finally:
        env.close()
    _import_writer()


_REMEDY = (
    "Leave out --video, or let the environment take render_mode='rgb_array' and return pictures "
    "from render()."
)


def _not_shown(env: gym.Env[Any, Any], why: str) -> CoachError:
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    missing = "pip install" in why or "No module named" in why
    remedy = "Run: pip install 'coach-rl[video]'" if missing else _REMEDY
    return CoachError(f"A video of {name} cannot be made: {why.rstrip('.')}.", remedy)


def _import_writer() -> Any:
    try:
        import imageio.v2
        import imageio_ffmpeg  # noqa: F401 (imageio looks for it when it writes)
    except ImportError as error:
        raise CoachError(
            f"Recording a video needs the package '{error.name}'.",
            "Run: pip install 'coach-rl[video]'",
        ) from error
    return imageio.v2


def _writer(path: Path, fps: float) -> Any:
    # Codecs want even sizes; a picture of another size is scaled by a pixel.
    return _import_writer().get_writer(path, fps=fps, macro_block_size=2)
