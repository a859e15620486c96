"""Where environments are stepped best: here, in threads or in processes; found out by timing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import perf_counter, thread_time

from coach.environments.making import EnvironmentSettings
from coach.runners.worker import WorkerKind

_MOST_STEPS, _MOST_SECONDS = 200, 0.5
# Handing a step to workers and waiting for all of them, measured with two on two CPUs.
HANDOVER_SECONDS = 150e-6


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
    """Time some random steps of one environment, and choose.

    What is chosen changes nothing but the speed.

    Args:
        environment: settings of one environment.
        num_envs: over all workers.
        workers: how many could share them.
        apart: never choose this thread.
    """
    wall, busy = time_steps(environment)
    took = f"a step takes {_shown(wall)}"
    saved = wall * (num_envs - -(-num_envs // workers))
    if not apart and (workers == 1 or saved <= HANDOVER_SECONDS):
        return Placement(
            None,
            f"environments stay in this thread: {took}, so sharing {num_envs} of them among "
            f"{workers} workers would save less than handing over costs "
            f"({_shown(HANDOVER_SECONDS)})",
        )
    if busy < 0.5 * wall:
        return _chosen("thread", workers, f"{took}, most of it waiting", apart)
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return _chosen("thread", workers, f"{took}, and this Python has no global lock", apart)
    return _chosen("process", workers, f"{took}, most of it computing", apart)


def _chosen(kind: WorkerKind, workers: int, why: str, apart: bool) -> Placement:
    plural = "processes" if kind == "process" else "threads"
    return Placement(kind, why if apart else f"{workers} {plural}: {why}")


def time_steps(environment: EnvironmentSettings) -> tuple[float, float]:
    """Mean wall time and mean CPU time of a random step, in seconds."""
    env = environment.make()
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        begin, begin_busy, steps = perf_counter(), thread_time(), 0
        while steps < _MOST_STEPS and perf_counter() - begin < _MOST_SECONDS:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            steps += 1
            if terminated or truncated:
                env.reset()
        return (perf_counter() - begin) / steps, (thread_time() - begin_busy) / steps
    finally:
        env.close()


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"
