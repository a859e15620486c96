"""Environments are placed by how they behave, whatever they are called."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from coach.environments.making import EnvironmentSettings
from coach.runners import placement
from coach.runners.placement import choose_placement, time_steps, together
from gymnasium import spaces

MODES = Path(__file__).parents[1] / "modes"
TINY = EnvironmentSettings(f"{MODES / 'tiny_world.py'}:TinyWorld")


class Counting(gym.Env[Any, Any]):
    """Ends every third step and counts."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)
    steps = resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets += 1
        return 0, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        time.sleep(0.001)
        return 0, 0.0, self.steps % 3 == 0, False, {}


def test_light_environments_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "HANDOVER_SECONDS", 10.0)  # however slow this machine is now
    found = choose_placement(TINY, num_envs=8, workers=2)
    assert found.kind is None
    assert "stay in this thread" in found.words


def test_threads_step_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=60)

    class Meeting(Counting):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            meeting.wait()  # never comes back unless the other thread is in a step as well
            return super().step(action)

    envs: list[gym.Env[Any, Any]] = [Meeting(), Meeting()]
    assert together(envs, 5) > 0
    assert [env.steps for env in envs] == [5, 5]  # type: ignore[attr-defined]


def test_one_that_must_be_apart_never_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "HANDOVER_SECONDS", 10.0)
    assert choose_placement(TINY, num_envs=1, workers=1, apart=True).kind is not None


@pytest.mark.parametrize(("gain", "kind"), [(1.0, "process"), (1.9, "thread")])
def test_threads_have_to_pay(gain: float, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(placement, "time_steps", lambda env: (0.01, 100))
    monkeypatch.setattr(
        placement, "together", lambda envs, steps: 2 / gain if len(envs) == 2 else next(noise)
    )
    found = choose_placement(TINY, num_envs=4, workers=2)
    assert found.kind == kind
    assert f"two threads step {gain} times as fast as one" in found.words


@pytest.mark.parametrize(("locked", "kind"), [(True, "process"), (False, "thread")])
def test_many_threads_would_queue_for_the_lock(
    locked: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: locked, raising=False)
    monkeypatch.setattr(placement, "time_steps", lambda env: (0.01, 100))
    monkeypatch.setattr(placement, "together", lambda envs, steps: 1.0)
    assert choose_placement(TINY, num_envs=8, workers=4).kind == "thread"
    assert choose_placement(TINY, num_envs=8, workers=8).kind == kind


def test_steps_are_timed_and_limited() -> None:
    env = Counting()
    seconds, steps = time_steps(env, most_steps=7)
    assert (steps, env.steps, env.resets) == (7, 7, 3)
    assert seconds >= 0.001
    _, once = time_steps(env, most_seconds=0.0)
    assert once == 1
