"""Making environments from their settings, with clear words when that fails."""

from __future__ import annotations

import copy
import importlib
import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import gymnasium as gym
from coach.core.errors import CoachError, InterruptedRunError, SettingError, nearest
from coach.core.registry import entries, find, load_plugin
from coach.core.schema import Count, build, parameters
from coach.environments.arrays import EnvArrays
from coach.environments.checks import cut
from coach.environments.lanes import EnvPoolLanes, Lanes, gymnasium_lanes
from coach.environments.native import NativeEnv, NativeEnvs
from coach.environments.serial import SerialEnvs
from coach.environments.vector import VectorEnv

T = TypeVar("T")

#: Import name of what an environment may need -> the extra of ours that brings it.
EXTRAS = {
    "ale_py": "atari",
    "cv2": "atari",
    "envpool": "envpool",
    "Box2D": "box2d",
    "minatar": "minatar",
    "mujoco": "mujoco",
    "imageio": "mujoco",
    "imageio_ffmpeg": "video",
    "pygame": "video",
}

#: Agent steps of the longest Atari game: 108,000 frames, four to a step.
MOST_STEPS_OF_AN_EVALUATION = 27_000


class EnvironmentSettings:
    """The ``environment:`` section of a preset.

    Args:
        id: a Gymnasium id, the name of one of our own environments (`coach list environments`),
            ``package.module:Class``, ``file.py:Class``, or ``module:Id`` where importing the module
            registers the id; with ``backend: envpool`` one of EnvPool's ids.
        kwargs: passed to the environment.
        evaluation_kwargs: those that differ where the policy is judged, such as
            ``clip_rewards: false`` for the game's own score.
        wrappers: Gymnasium wrappers (or ``package.module:Class``), innermost first: a name, or
            ``Name: {argument: value}``. Only with ``backend: python``.
        max_episode_steps: time limit; left out, the environment's own.
        backend: what steps many at once. ``python``: our own loop, for every environment.
            ``gymnasium``: the vector environment that an id comes with (CartPole-v1, ALE/...).
            ``envpool``: EnvPool. The last two cannot bring unfinished episodes back.
        on_bad_value: what a reward or observation does that is NaN, infinite or outside of its
            space. ``stop`` ends the run with a checkpoint. ``drop_episode`` begins the next
            episode of that environment and learns nothing from the fragment with the bad value;
            only with ``backend: python``.

    Raises:
        SettingError: wrappers or ``drop_episode`` on a native backend.
    """

    def __init__(
        self,
        id: str,
        kwargs: dict[str, Any] | None = None,
        wrappers: list[str | dict[str, Any]] | None = None,
        max_episode_steps: Count | None = None,
        backend: Literal["python", "gymnasium", "envpool"] = "python",
        evaluation_kwargs: dict[str, Any] | None = None,
        on_bad_value: Literal["stop", "drop_episode"] = "stop",
    ) -> None:
        self.on_bad_value = on_bad_value
        self.id, self.kwargs, self.backend = id, kwargs or {}, backend
        self.evaluation_kwargs = evaluation_kwargs or {}
        self.wrappers, self.max_episode_steps = wrappers or [], max_episode_steps
        if self.wrappers and backend != "python":
            raise SettingError(
                "environment.wrappers",
                f"wrappers cannot be put around environments of backend {backend}",
                "Remove environment.backend, or use what the environment offers in "
                "environment.kwargs in place of the wrappers.",
            )
        if on_bad_value != "stop" and backend != "python":
            raise SettingError(
                "environment.on_bad_value",
                f"environments of backend {backend} cannot begin an episode before the last ended",
                "Remove environment.backend, or set environment.on_bad_value to stop.",
            )

    def judging(self) -> EnvironmentSettings:
        """The environment that the policy is judged in."""
        judged = copy.copy(self)
        judged.kwargs = self.kwargs | self.evaluation_kwargs
        return judged

    def most_steps(self, stated: int | None) -> int:
        """Steps of an evaluation's episode at most: as ``stated``, or a limit that spoils none."""
        if stated is not None:
            return stated
        spec = gym.registry.get(self.id)
        own = self.max_episode_steps or (spec and spec.max_episode_steps) or 0
        return max(own, MOST_STEPS_OF_AN_EVALUATION)

    def make(self, **extra: Any) -> gym.Env[Any, Any]:
        """A new environment; ``extra`` goes to its constructor (``render_mode``).

        Raises:
            SettingError: unknown id, wrapper or argument, or a missing package.
        """
        with _kept_signals():
            return self._complete(extra)

    def _complete(self, extra: dict[str, Any]) -> gym.Env[Any, Any]:
        if self.backend != "python":
            return NativeEnv(self._lanes(1, 1, extra), extra.get("render_mode"))
        env = self._guarded(
            "environment.id", lambda: self._make(copy.deepcopy(self.kwargs) | extra)
        )
        if self.max_episode_steps is not None:
            env = gym.wrappers.TimeLimit(env, self.max_episode_steps)
        for number, wrapper in enumerate(self.wrappers):
            key = f"environment.wrappers[{number}]"
            name, arguments = _named_wrapper(wrapper, key)
            cls = _wrapper_class(name, key)
            arguments = _with_tuples(cls, arguments)
            try:
                env = self._guarded(key, lambda c=cls, e=env, a=arguments: c(e, **a))  # type: ignore[misc]
            except SettingError:
                self._require_spaces(env)  # which the wrapper may have missed
                raise
        self._require_spaces(env)
        return env

    def _require_spaces(self, env: gym.Env[Any, Any]) -> None:
        for name in ("observation_space", "action_space"):
            space = getattr(env, name, None)
            if not isinstance(space, gym.Space):
                what = "sets no" if space is None else f"sets {cut(repr(space))} as its"
                raise SettingError(
                    "environment.id",
                    f"{self.id} {what} {name}",
                    f"Set self.{name} to a gymnasium.spaces space in its __init__.",
                )

    def factory(self) -> Callable[[], gym.Env[Any, Any]]:
        """A function that makes one environment."""
        return self.make

    def vector(
        self,
        num_envs: int,
        seed: int,
        first_env: int = 0,
        threads: int = 1,
        arrays: EnvArrays | None = None,
        max_steps: int | None = None,
    ) -> VectorEnv:
        """Many environments in this process, stepped as ``backend`` says.

        Args:
            num_envs: how many.
            seed: of the run.
            first_env: global id of the first.
            threads: that step them, if the backend is native; they change nothing but the speed.
            arrays: where outcomes are written; left out, arrays of their own.
            max_steps: of an episode, which is then cut; native environments play on.

        Raises:
            SettingError: see `make`; or the backend does not serve this environment.
        """
        if self.backend == "python":
            return SerialEnvs(
                self.factory(),
                num_envs,
                seed,
                first_env,
                arrays,
                max_steps,
                name=self.id,
                drop=self.on_bad_value == "drop_episode",
            )
        lanes = self._lanes(num_envs, threads, {})
        return NativeEnvs(lanes, seed, first_env, arrays, self.id)

    def _lanes(self, num_envs: int, threads: int, extra: dict[str, Any]) -> Lanes:
        kwargs, limit = copy.deepcopy(self.kwargs) | extra, self.max_episode_steps
        if ":" in self.id or any(entry.name == self.id for entry in entries("environment")):
            raise SettingError(
                "environment.backend",
                f"{self.id} is stepped in Python, it is not part of {self.backend}",
                "Remove environment.backend.",
            )
        if self.backend == "envpool":
            kwargs |= {} if limit is None else {"max_episode_steps": limit}
            return self._guarded(
                "environment.id", lambda: EnvPoolLanes(self.id, num_envs, threads, kwargs)
            )

        def make() -> Lanes:
            self._register_extras()
            return gymnasium_lanes(self.id, num_envs, threads, kwargs, limit)

        return self._guarded("environment.id", make)

    def _make(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        if ":" in self.id:
            try:
                return self._own(find("environment", self.id, "environment.id"), kwargs)
            except SettingError:
                name = self.id.rpartition(":")[2]
                if name not in gym.registry:
                    raise
                return self._registered(name, kwargs)  # importing the module has registered it
        if any(entry.name == self.id for entry in entries("environment")):
            return self._own(find("environment", self.id, "environment.id"), kwargs)
        self._register_extras()
        return self._registered(self.id, kwargs)

    def _registered(self, id: str, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        limit = {"max_episode_steps": -1} if self.max_episode_steps is not None else {}
        return gym.make(id, disable_env_checker=True, **limit, **kwargs)

    def _own(self, cls: type, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        if not issubclass(cls, gym.Env):
            raise SettingError("environment.id", f"{self.id} is no gymnasium.Env")
        registered = hasattr(cls, "registered_name")
        if registered and "render_mode" not in parameters(cls):  # it has no pictures
            kwargs.pop("render_mode", None)
        env: gym.Env[Any, Any] = (
            build(cls, kwargs, "environment.kwargs").value if registered else cls(**kwargs)
        )
        return env

    def _register_extras(self) -> None:
        if self.id.startswith("ALE/") or "NoFrameskip" in self.id:
            gym.register_envs(importlib.import_module("ale_py"))
        if self.id.startswith("MinAtar/") and self.id not in gym.registry:
            importlib.import_module("minatar.gym").register_envs()

    def _guarded(self, key: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except CoachError:
            raise
        except ModuleNotFoundError as error:
            raise _missing(self.id, error.name or str(error)) from error
        except gym.error.DependencyNotInstalled as error:
            raise _missing(self.id, _package_of(error)) from error
        except (gym.error.NameNotFound, gym.error.NamespaceNotFound, gym.error.VersionNotFound,
                gym.error.DeprecatedEnv) as error:  # fmt: skip
            known = [*gym.registry, *(entry.name for entry in entries("environment"))]
            hint = nearest(self.id, known) if known else ""
            raise SettingError(key, _first_line(error), hint if "mean" in hint else "") from error
        except TypeError as error:
            where = key if "wrappers" in key else "environment.kwargs"
            raise SettingError(
                key, _first_line(error), f"Check the arguments in {where}."
            ) from error
        except (InterruptedRunError, KeyboardInterrupt):
            raise
        except BaseException as error:  # sys.exit among them
            raise SettingError(
                key, f"{self.id} cannot be made: {type(error).__name__}: {_first_line(error)}"
            ) from error


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Handle signals as before, whatever an environment sets; they are for the run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [(number, signal.getsignal(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            if handler is not None:
                signal.signal(number, handler)


def _named_wrapper(wrapper: Any, key: str) -> tuple[str, dict[str, Any]]:
    if isinstance(wrapper, str):
        return wrapper, {}
    if isinstance(wrapper, dict) and len(wrapper) == 1:
        ((name, arguments),) = wrapper.items()
        if arguments is None or isinstance(arguments, dict):
            return str(name), dict(arguments or {})
    raise SettingError(
        key, f"expected a wrapper's name or 'Name: {{argument: value}}', got {wrapper!r}"
    )


def _with_tuples(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples where the constructor asks for these, which YAML cannot write."""
    try:
        takes = inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return arguments
    wants = {name for name, item in takes.items() if "tuple[" in str(item.annotation).lower()}
    return {
        name: tuple(value) if name in wants and isinstance(value, list) else value
        for name, value in arguments.items()
    }


def _wrapper_class(name: str, key: str) -> type[gym.Wrapper[Any, Any, Any, Any]]:
    if ":" in name:
        module, _, attribute = name.rpartition(":")
        cls = getattr(load_plugin(module), attribute, None)
    else:
        cls = getattr(gym.wrappers, name, None)
    if not (isinstance(cls, type) and issubclass(cls, gym.Wrapper)):
        known = [
            n for n, c in vars(gym.wrappers).items()
            if isinstance(c, type) and issubclass(c, gym.Wrapper)
        ]  # fmt: skip
        raise SettingError(key, f"Gymnasium has no wrapper '{name}'", nearest(name, known))
    return cls


def _missing(env_id: str, package: str) -> SettingError:
    root = package.split(".")[0]
    extra = EXTRAS.get(root)
    command = f"pip install 'coach-rl[{extra}]'" if extra else f"pip install {root}"
    return SettingError("environment.id", f"{env_id} needs the package '{root}'", f"Run: {command}")


def _package_of(error: BaseException) -> str:
    text = str(error).lower()
    named = (name for name in EXTRAS if name.lower() in text)
    cause = error.__cause__
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        return cause.name
    return next(named, _first_line(error))


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
