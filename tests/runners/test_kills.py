"""Whatever moment a process is killed at, what it has saved before or since is there and whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from coach.core.state import under
from coach.runners import folder as run_folder
from coach.runners.changes import Change
from coach.runners.checkpoint import (
    Checkpointer,
    checkpoints,
    find_latest,
    load_policy,
    save_policy,
)
from coach.runners.resuming import seconds_so_far, write_result
from coach.runners.training import Run
from dying import killed_everywhere

Launch = Callable[..., Run]


@pytest.mark.parametrize(
    ("env_steps", "keep"), [(300, 1), (340, 2)], ids=["the same step again", "a later step"]
)
def test_a_checkpoint_is_found_at_every_instant(
    env_steps: int,
    keep: int,
    tiny_dqn: dict[str, Any],
    launch: Launch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_dqn["run"] |= {"steps": 300, "keep_checkpoints": keep}
    tiny_dqn["evaluation"]["every"] = 0
    run = launch(tiny_dqn)
    run.train()
    run.experiment.memory.write(run.experiment.source.collect())  # something for the journal
    state, chunks = run.state_dict(), list(run.checkpointer.journal.chunks)
    saved = list(run.checkpointer.journal.saved)
    copy = tmp_path / "copy"

    def prepare() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run.folder, copy)

    def save() -> None:
        checkpointer = Checkpointer(copy, run.experiment.memory, keep)
        checkpointer.journal.chunks, checkpointer.journal.saved = list(chunks), list(saved)
        checkpointer.save(env_steps, {**state, "best": 123.0})

    def complain(text: str) -> None:
        raise AssertionError(text)

    marks = []
    for _ in killed_everywhere(save, prepare, monkeypatch):
        found = find_latest(copy, complain)
        marks.append(found.state["best"])
        assert found.replay_is_whole
        assert found.manifest["env_steps"] == (300 if found.state["best"] is None else env_steps)
        for name, value in under("learner/agent.", state).items():
            assert found.state[f"learner/agent.{name}"].equal(value)
    assert marks[0] is None
    assert marks[-1] == 123.0
    assert marks == sorted(marks, key=lambda mark: mark is not None), "the old, then the new one"
    assert len(marks) > 10
    assert len(checkpoints(copy)) == keep
    assert not [path for path in copy.rglob(".*") if path.name != ".lock"], "left over"


def test_the_best_policy_is_there_at_every_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "best"

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        save_policy(folder, {"w": torch.zeros(3)}, {"env_steps": 1})

    def save() -> None:
        save_policy(folder, {"w": torch.ones(3)}, {"env_steps": 2})

    steps = []
    for _ in killed_everywhere(save, prepare, monkeypatch):
        weights, facts = load_policy(folder)
        assert weights["w"].tolist() == [float(facts["env_steps"] - 1)] * 3
        steps.append(facts["env_steps"])
    assert steps == sorted(steps)
    assert {1, 2} == set(steps)


def test_changed_settings_are_the_old_or_the_new_ones_at_every_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "environment": {"id": "CartPole-v1"},
        "agent": {"type": "dqn"},
        "memory": {"type": "replay"},
        "optimizer": {"type": "adam", "lr": 0.003},
        "run": {"steps": 10},
    }
    folder = run_folder.create(tmp_path, "x", 1, settings, [])
    first = (folder / "run.json").read_bytes(), (folder / "preset.yaml").read_bytes()
    record = run_folder.read(folder)
    new = {**settings, "optimizer": {"type": "adam", "lr": 0.0001}}

    def prepare() -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "run.json").write_bytes(first[0])
        (folder / "preset.yaml").write_bytes(first[1])

    def change() -> None:
        mine = run_folder.RunRecord(
            **vars(record) | {"changes": [], "rendered": record.rendered[:]}
        )
        mine.change(folder, new, [Change("optimizer.lr", 0.003, 0.0001)], 7)

    seen = []
    for _ in killed_everywhere(change, prepare, monkeypatch):
        now = run_folder.read(folder)
        assert run_folder.edits(folder, now) == ""
        assert now.settings in (settings, new)
        assert bool(now.changes) == (now.settings == new)
        seen.append(now.settings == new)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (False, True)


def test_the_result_is_the_old_or_the_new_one_at_every_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complain(text: str) -> None:
        raise AssertionError(text)

    seen = [
        seconds_so_far(tmp_path, complain)
        for _ in killed_everywhere(
            lambda: write_result(tmp_path, {"seconds": 9.0}),
            lambda: write_result(tmp_path, {"seconds": 4.0}),
            monkeypatch,
        )
    ]
    assert seen == sorted(seen)
    assert set(seen) == {4.0, 9.0}
