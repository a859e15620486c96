"""Mode async: a learner that runs free, a server that acts for all, threads or processes by choice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from coach.core.errors import SettingError
from coach.runners import modes
from coach.runners.placement import Placement
from mode_runs import Alone, agents, outcome, settings_for, trained
from test_modes import ready_for_lag

WAITING = f"{Path(__file__).with_name('waiting_world.py')}:WaitingWorld"


def test_a_free_learner_makes_more_updates_than_are_owed(tmp_path: Path) -> None:
    run = {"mode": "async", "workers": 1, "worker_kind": "thread", "free_learner": True}
    settings = settings_for("dqn", **run)
    settings["environment"] = {"id": WAITING}
    done = trained(tmp_path, settings)
    owed = int((done.clock.env_steps - 24) * 0.25)
    assert done.experiment.memory.state_dict()["updates"] == owed  # so resuming owes no more
    assert done.experiment.learner.version > 2 * owed


@pytest.mark.parametrize("agent", agents())
def test_a_server_acts_for_all_workers(agent: str, alone: Alone, tmp_path: Path) -> None:
    """One thread that acts on the environments of all workers: with one slot, mode single."""
    ready = ready_for_lag(agent)
    run = {"mode": "async", "inference": "server", "workers": 2, "worker_kind": "thread"}
    served = outcome(tmp_path, settings_for(ready, **run, slots=1), source=False)
    assert served == alone(ready, source=False)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"mode": "sync", "free_learner": True}, "run.free_learner.*run ahead"),
        ({"mode": "single", "inference": "server"}, "run.inference.*run ahead"),
        (
            {"mode": "async", "exchange": "gradients", "free_learner": True},
            "run.free_learner.*run ahead",
        ),
    ],
)
def test_options_of_async_are_refused_elsewhere(
    run: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=words):
        trained(tmp_path, settings_for("dqn", **run))


def test_a_free_learner_needs_a_memory_to_draw_from_again(tmp_path: Path) -> None:
    run = {"mode": "async", "workers": 2, "free_learner": True}
    with pytest.raises(SettingError, match="rollout"):
        trained(tmp_path, settings_for("actor_critic", **run))


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_auto_times_the_environment_and_says_what_it_chose(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def choose(*_: Any, **options: Any) -> Placement:
        asked.append(options)
        return Placement(kind, "a step takes 2 ms")

    monkeypatch.setattr(modes, "choose_placement", choose)
    run = trained(tmp_path, settings_for("dqn", mode="async", workers=2, inference="server"))
    assert asked == [{"apart": True}]
    assert run.experiment.note == (
        f"Mode async: one thread acts on cpu for 2 workers, one {kind} each (a step takes 2 ms)"
    )
    assert torch.isfinite(next(run.experiment.agent.parameters())).all()


@pytest.mark.parametrize(("locked", "kind"), [(True, "process"), (False, "thread")])
def test_actors_are_threads_only_without_a_global_lock(
    locked: bool, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: locked, raising=False)
    run = trained(tmp_path, settings_for("dqn", mode="async", workers=2))
    assert run.experiment.note == f"Mode async: 2 actors, one {kind} each"
