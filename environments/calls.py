"""Calls of environments: whatever goes wrong in one becomes an error that names the environment.

Errors of an environment must not be taken for those of a disk or of the learner, and an environment
that calls `sys.exit` must not end a run without a word.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import gymnasium as gym
from coach.core.errors import CoachError, FailedEnvironmentError, InterruptedRunError

#: What passes through unchanged: our own errors, and what ends a run from outside.
NOT_OF_ENVIRONMENTS = (CoachError, InterruptedRunError, KeyboardInterrupt, GeneratorExit)
_FRAMES = 4  # of an environment's traceback that a message shows
_log = logging.getLogger(__name__)
_said: set[str] = set()


def environment_name(env: Any) -> str:
    """The id of an environment, or its class where it has none."""
    spec = getattr(env, "spec", None)
    cls = type(getattr(env, "unwrapped", env))
    return str(getattr(spec, "id", "") or f"{cls.__module__}:{cls.__qualname__}")


def failure(
    name: str,
    doing: str,
    error: BaseException,
    env_id: int | None = None,
    episode: int | None = None,
    step: int | None = None,
) -> FailedEnvironmentError:
    """The error to raise in place of what an environment raised.

    Args:
        name: of the environment.
        doing: the call: "step", "reset".
        error: what it raised.
        env_id: global id of the environment in the run.
        episode: number of its episode, from 0.
        step: number of the step in the episode, from 1.
    """
    places = (("environment", env_id), ("episode", episode), ("step", step))
    where = ", ".join(f"{word} {number}" for word, number in places if number is not None)
    frames = _frames(error.__traceback__)
    return FailedEnvironmentError(
        f"{name} failed in {doing}(){where and f' ({where})'}:\n{frames}{_words(error)}",
        f"Mend {name}.",
    )


@contextmanager
def calling(name: str, doing: str) -> Iterator[None]:
    """Let what an environment raises in here name the environment.

    Raises:
        FailedEnvironmentError: it raised something.
    """
    try:
        yield
    except NOT_OF_ENVIRONMENTS:
        raise
    except BaseException as error:
        raise failure(name, doing, error) from error


def close(env: gym.Env[Any, Any]) -> None:
    """Close an environment; that it raises is reported once and costs nothing else."""
    try:
        env.close()
    except (InterruptedRunError, KeyboardInterrupt):
        raise
    except BaseException as error:
        say_once(str(failure(environment_name(env), "close", error).problem))


def say_once(text: str) -> None:
    """Log a warning, unless this process has said the same before."""
    if text not in _said:
        _said.add(text)
        _log.warning("%s", text)


def forget_what_was_said() -> None:
    """Let `say_once` say everything again."""
    _said.clear()


def _words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _frames(trace: TracebackType | None) -> str:
    """The last frames of a traceback without our own call, which is the first."""
    inner = trace.tb_next if trace is not None else None
    return "".join(traceback.format_tb(inner, -_FRAMES)) if inner is not None else ""
