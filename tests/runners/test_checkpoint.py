"""Checkpoints are whole or not there, and damage is noticed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fingerprint
import pytest
from coach.core.errors import CheckpointError, ResourceError
from coach.runners import storage
from coach.runners.checkpoint import (
    checkpoints,
    find_latest,
)
from coach.runners.seals import OtherVersionError
from coach.runners.training import Run, start
from forked import Forked
from rich.console import Console
from tiny_settings import TINY

Launch = Callable[..., Run]
Whole = Callable[[dict[str, Any]], Any]


@pytest.fixture
def finished(tiny_dqn: dict[str, Any], whole: Whole, tmp_path: Path) -> Path:
    """A folder of its own for every test: a copy of that of a finished run."""
    return Path(shutil.copytree(whole(tiny_dqn).folder, tmp_path / "finished"))


def test_the_last_ones_are_kept(finished: Path) -> None:
    steps = [int(path.name.split("-")[1]) for path in checkpoints(finished)]
    assert steps == [400, 500, 600]


def test_the_journal_holds_only_what_is_needed(finished: Path) -> None:
    on_disk = {path.name for path in (finished / "replay").iterdir()}
    needed = set()
    for folder in checkpoints(finished):
        manifest = json.loads((folder / "manifest.json").read_text())
        needed |= {chunk["file"] for chunk in manifest["journal"]}
    assert on_disk == needed
    # 240 transitions are kept, 100 steps lie between checkpoints: the first chunks are gone.
    assert "rows-0-100.safetensors" not in on_disk


def test_nothing_is_pickled(finished: Path) -> None:
    files = [path for path in finished.rglob("*") if path.is_file()]
    known = {".safetensors", ".json", ".csv", ".yaml"}
    other = [p for p in files if p.suffix not in known and "tfevents" not in p.name]
    assert other == []


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_passed_over(
    file: str,
    damage: str,
    finished: Path,
    tiny_dqn: dict[str, Any],
    whole: Whole,
    launch: Launch,
) -> None:
    _damage(checkpoints(finished)[-1] / file, damage)
    said: list[str] = []
    assert find_latest(finished, said.append).manifest["env_steps"] == 500
    assert len(said) == 1
    assert "checkpoint before it" in said[0]
    again = launch(tiny_dqn, finished)
    again.train()
    assert fingerprint.of_run(again) == whole(tiny_dqn).fingerprint


def test_a_damaged_chunk_of_the_replay_is_noticed(
    finished: Path, tiny_dqn: dict[str, Any], whole: Whole, launch: Launch
) -> None:
    newest = json.loads((checkpoints(finished)[-1] / "manifest.json").read_text())
    _damage(finished / "replay" / newest["journal"][-1]["file"], "flip")
    again = launch(tiny_dqn, finished)
    assert again.clock.env_steps == 500
    again.train()
    assert fingerprint.of_run(again) == whole(tiny_dqn).fingerprint


def test_all_damaged_is_an_error(finished: Path, tiny_dqn: dict[str, Any], launch: Launch) -> None:
    for folder in checkpoints(finished):
        _damage(folder / "tensors.safetensors", "flip")
    with pytest.raises(CheckpointError, match=r"All checkpoints of .* are damaged"):
        launch(tiny_dqn, finished)


def test_a_half_written_checkpoint_is_never_picked_up(
    finished: Path, tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    (finished / "checkpoints" / ".step-000000000700").mkdir()
    run = launch(tiny_dqn, finished)
    run.close()
    assert run.clock.env_steps == 600


def test_a_newer_format_is_refused_with_the_remedy(
    finished: Path, tiny_dqn: dict[str, Any], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coach.runners.seals.FORMAT", 0)
    with pytest.raises(OtherVersionError, match=r"newer version.*\n.*pip install --upgrade"):
        launch(tiny_dqn, finished)


def test_a_run_without_checkpoint_cannot_be_resumed(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    run = launch(tiny_dqn)
    run.close()
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from"):
        launch(tiny_dqn, run.folder)


def test_a_full_disk_stops_with_the_remedy_and_keeps_what_was_there(
    tiny_dqn: dict[str, Any], whole: Whole, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch(tiny_dqn)
    real = os.fsync

    def full(handle: int) -> None:
        if run.clock.env_steps >= 300:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full)
        with pytest.raises(ResourceError, match=r"disk is full.*\nFree some space"):
            run.train()
    assert checkpoints(run.folder)[-1].name.endswith("200")
    assert not list(run.folder.rglob("*.tmp"))
    rest = launch(tiny_dqn, run.folder)
    rest.train()
    assert fingerprint.of_run(rest) == whole(tiny_dqn).fingerprint


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match=r"cannot be written"):
        storage.write_file(tmp_path / "file" / "inside", b"data")


def test_an_interrupted_run_leaves_a_checkpoint(tmp_path: Path) -> None:
    process = Forked(_interrupt_itself, tmp_path, output=tmp_path / "printed.txt")
    assert process.wait() == 0, process.printed()
    assert "interrupted by SIGTERM" in process.printed()
    (folder,) = (tmp_path / "tiny").iterdir()
    assert checkpoints(folder)[-1].name.endswith("234")


def _interrupt_itself(folder: Path) -> None:
    run = start("tiny", TINY["dqn"], folder, Console(), [], quiet=True)
    after = run.after_fragment

    def interrupt() -> None:
        after()
        if run.clock.env_steps == 234:
            os.kill(os.getpid(), signal.SIGTERM)

    run.after_fragment = interrupt  # type: ignore[method-assign]
    print(run.train().stopped)


def _damage(path: Path, how: str) -> None:
    if how == "remove":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if how == "truncate":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
