"""Runs go on in every mode, and from one mode in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coach.runners.training import Run
from mode_runs import Alone, agents, go_on, settings_for, states, trained
from test_modes import ready_for_lag

MODES: dict[str, dict[str, Any]] = {
    "single": {"mode": "single"},
    "sync": {"mode": "sync", "workers": 2, "worker_kind": "thread"},
    "async": {"mode": "async", "workers": 2, "worker_kind": "thread"},
    "lockstep": {"mode": "async", "workers": 1, "slots": 1, "worker_kind": "thread"},
}


def begun(folder: Path, agent: Any, mode: str, steps: int) -> Run:
    return trained(folder, settings_for(agent, **MODES[mode], steps=steps))


@pytest.mark.parametrize("agent", agents())
def test_sync_continues_bit_for_bit(agent: str, alone: Alone, tmp_path: Path) -> None:
    """To what mode single gives, too."""
    rest = go_on(begun(tmp_path, agent, "sync", 144), steps=256)  # in the middle of a rollout
    assert states(rest) == alone(agent)


def test_single_continues_in_sync_as_if_nothing_had_changed(alone: Alone, tmp_path: Path) -> None:
    rest = go_on(begun(tmp_path, "dqn", "single", 144), **MODES["sync"], steps=256)
    assert states(rest) == alone("dqn")


@pytest.mark.parametrize("agent", agents())
def test_async_loses_nothing_but_fragments_in_flight(agent: str, tmp_path: Path) -> None:
    first = begun(tmp_path, ready_for_lag(agent), "async", 256)
    before, updates = states(first), first.experiment.learner.version
    rest = go_on(first, steps=512)
    assert rest.clock.env_steps >= 512
    assert rest.experiment.learner.version > updates
    after: Any = states(rest)
    episodes: Any = before["source/episode"]
    assert all(new > old for new, old in zip(after["source/episode"], episodes))
    if "memory/env_steps" in before:
        assert after["memory/env_steps"] == rest.clock.env_steps


@pytest.mark.parametrize("one", MODES)
@pytest.mark.parametrize("other", MODES)
def test_every_mode_takes_over_from_every_other(one: str, other: str, tmp_path: Path) -> None:
    first = begun(tmp_path, "dqn", one, 128)
    rest = go_on(first, **{"workers": None, "slots": 2, **MODES[other]}, steps=192)
    assert rest.clock.env_steps >= 192
    assert rest.experiment.memory.state_dict()["env_steps"] == rest.clock.env_steps


LIVES = f"{Path(__file__).with_name('lives_world.py')}:LivesWorld"


@pytest.mark.parametrize("mode", ["single", "sync"])
def test_episodes_that_go_on_from_those_before_continue_bit_for_bit(
    mode: str, tmp_path: Path
) -> None:
    """As after a lost life of a game: what is brought back is the whole game."""

    def run(steps: int) -> Run:
        settings = settings_for("dqn", **MODES[mode], steps=steps)
        settings["environment"] = {"id": LIVES}
        return trained(tmp_path, settings)

    whole, part = states(run(256)), run(148)
    begun = states(part)
    assert any(name.startswith("source/envs.earlier.") for name in begun), "in a later life"
    assert states(go_on(part, steps=256)) == whole


def test_lives_are_the_same_in_sync(tmp_path: Path) -> None:
    def run(mode: str) -> dict[str, object]:
        settings = settings_for("dqn", **MODES[mode], steps=256)
        settings["environment"] = {"id": LIVES}
        return states(trained(tmp_path, settings))

    assert run("sync") == run("single")
