"""Where environments are stepped best: here, in threads or in processes; found out by timing."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import gymnasium as gym
from coach.core.errors import CoachError
from coach.environments.calls import calling, close, environment_name
from coach.environments.making import EnvironmentSettings
from coach.runners.worker import WorkerKind

_MOST_STEPS, _MOST_SECONDS, _ROUNDS = 200, 0.15, range(3)
# Handing a step to workers and waiting for all of them, measured with two on two CPUs.
HANDOVER_SECONDS = 150e-6
_THREADS_PAY = 1.5  # steps of two threads in the time of one; 2 is the most, 1 if they exclude

_FEW = 4  # workers; with 8 of them that wait 2 ms a step, processes were 1.08 times as fast


@dataclass(frozen=True)
class Placement:
    """A choice.

    Args:
        kind: of the workers; ``None`` steps the environments in the learner's own thread.
        words: what was chosen and why.
    """

    kind: WorkerKind | None
    words: str


def choose_placement(
    environment: EnvironmentSettings, num_envs: int, workers: int, apart: bool = False
) -> Placement:
    """Time some random steps, alone and in two threads at once, and choose.

    What is chosen changes nothing but the speed.

    Args:
        environment: settings of one environment.
        num_envs: over all workers.
        workers: how many could share them.
        apart: never choose this thread.
    """
    envs: list[gym.Env[Any, Any]] = []
    try:
        for _ in range(2):
            envs.append(environment.make())
        seconds, steps = time_steps(envs[0])
        took = f"a step takes {_shown(seconds)}"
        saved = seconds * (num_envs - -(-num_envs // workers))
        if not apart and (workers == 1 or saved <= HANDOVER_SECONDS):
            return Placement(
                None,
                f"environments stay in this thread: {took}, so sharing {num_envs} of them among "
                f"{workers} workers would save less than handing over costs "
                f"({_shown(HANDOVER_SECONDS)})",
            )
        # The fastest of a few, in turn: whatever else the machine does only slows them down.
        alone, both = zip(*[(together(envs[:1], steps), together(envs, steps)) for _ in _ROUNDS])
        gain = 2 * min(alone) / max(min(both), 1e-9)
    except CoachError as error:
        if not envs:
            raise
        reason = f"two cannot be tried side by side ({error.problem.splitlines()[-1]})"
        return Placement("process", reason if apart else f"{workers} processes: {reason}")
    finally:
        for env in envs:
            close(env)
    why = f"{took}, and two threads step {gain:.1f} times as fast as one"
    kind: WorkerKind = "thread" if gain > _THREADS_PAY else "process"
    if kind == "thread" and workers > _FEW and getattr(sys, "_is_gil_enabled", lambda: True)():
        kind, why = "process", f"{why}, but {workers} would queue for Python's lock between steps"
    plural = "threads" if kind == "thread" else "processes"
    return Placement(kind, why if apart else f"{workers} {plural}: {why}")


def time_steps(
    env: gym.Env[Any, Any], most_steps: int = _MOST_STEPS, most_seconds: float = _MOST_SECONDS
) -> tuple[float, int]:
    """Mean seconds of a random step, and how many were taken; no more than the limits say."""
    with calling(environment_name(env), "step"):
        env.action_space.seed(0)
        env.reset(seed=0)
        begin, steps = perf_counter(), 0
        while steps < most_steps and (steps == 0 or perf_counter() - begin < most_seconds):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            steps += 1
            if terminated or truncated:
                env.reset()
    return (perf_counter() - begin) / steps, steps


def together(envs: list[gym.Env[Any, Any]], steps: int) -> float:
    """Seconds in which every environment takes ``steps`` steps, each in a thread of its own.

    All of them count, not the mean of each: a thread that holds Python's lock most of the time
    may let no other begin before it is done.
    """
    failures: list[CoachError] = []

    def time_one(env: gym.Env[Any, Any]) -> None:
        try:
            time_steps(env, steps, 60.0)
        except CoachError as error:
            failures.append(error)

    threads = [threading.Thread(target=time_one, args=(env,), daemon=True) for env in envs]
    begin = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return perf_counter() - begin


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"
