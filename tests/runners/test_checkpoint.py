"""Checkpoints are whole or not there, and damage is noticed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
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
from coach.runners.training import Run

Launch = Callable[..., Run]


@pytest.fixture
def finished(tiny_dqn: dict[str, Any], launch: Launch) -> Run:
    run = launch(tiny_dqn)
    run.train()
    return run


def test_the_last_ones_are_kept(finished: Run) -> None:
    steps = [int(path.name.split("-")[1]) for path in checkpoints(finished.folder)]
    assert steps == [400, 500, 600]


def test_the_journal_holds_only_what_is_needed(finished: Run) -> None:
    on_disk = {path.name for path in (finished.folder / "replay").iterdir()}
    needed = set()
    for folder in checkpoints(finished.folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        needed |= {chunk["file"] for chunk in manifest["journal"]}
    assert on_disk == needed
    # 240 transitions are kept, 100 steps lie between checkpoints: the first chunks are gone.
    assert "rows-0-100.safetensors" not in on_disk


def test_nothing_is_pickled(finished: Run) -> None:
    files = [path for path in finished.folder.rglob("*") if path.is_file()]
    known = {".safetensors", ".json", ".csv", ".yaml"}
    other = [p for p in files if p.suffix not in known and "tfevents" not in p.name]
    assert other == []


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_passed_over(
    file: str, damage: str, finished: Run, tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    before = fingerprint.of_run(finished)
    _damage(checkpoints(finished.folder)[-1] / file, damage)
    said: list[str] = []
    assert find_latest(finished.folder, said.append).manifest["env_steps"] == 500
    assert len(said) == 1
    assert "checkpoint before it" in said[0]
    again = launch(tiny_dqn, finished.folder)
    again.train()
    assert fingerprint.of_run(again) == before


def test_a_damaged_chunk_of_the_replay_is_noticed(
    finished: Run, tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    before = fingerprint.of_run(finished)
    newest = json.loads((checkpoints(finished.folder)[-1] / "manifest.json").read_text())
    _damage(finished.folder / "replay" / newest["journal"][-1]["file"], "flip")
    again = launch(tiny_dqn, finished.folder)
    assert again.clock.env_steps == 500
    again.train()
    assert fingerprint.of_run(again) == before


def test_all_damaged_is_an_error(finished: Run, tiny_dqn: dict[str, Any], launch: Launch) -> None:
    for folder in checkpoints(finished.folder):
        _damage(folder / "tensors.safetensors", "flip")
    with pytest.raises(CheckpointError, match=r"All checkpoints of .* are damaged"):
        launch(tiny_dqn, finished.folder)


def test_a_half_written_checkpoint_is_never_picked_up(
    finished: Run, tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    (finished.folder / "checkpoints" / ".step-000000000700").mkdir()
    run = launch(tiny_dqn, finished.folder)
    run.close()
    assert run.clock.env_steps == 600


def test_a_newer_format_is_refused_with_the_remedy(
    finished: Run, tiny_dqn: dict[str, Any], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coach.runners.seals.FORMAT", 0)
    with pytest.raises(OtherVersionError, match=r"newer version.*\n.*pip install --upgrade"):
        launch(tiny_dqn, finished.folder)


def test_a_run_without_checkpoint_cannot_be_resumed(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    run = launch(tiny_dqn)
    run.close()
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from"):
        launch(tiny_dqn, run.folder)


def test_a_full_disk_stops_with_the_remedy_and_keeps_what_was_there(
    tiny_dqn: dict[str, Any], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = launch(tiny_dqn)
    whole.train()
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
    assert fingerprint.of_run(rest) == fingerprint.of_run(whole)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match=r"cannot be written"):
        storage.write_file(tmp_path / "file" / "inside", b"data")


def test_an_interrupted_run_leaves_a_checkpoint(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from rich.console import Console\n"
        "from tiny_settings import TINY\n"
        "from coach.runners.training import start\n"
        "run = start('tiny', TINY['dqn'], Path(sys.argv[1]), Console(), [], quiet=True)\n"
        "after = run._after_fragment\n"
        "def interrupt():\n"
        "    after()\n"
        "    if run.clock.env_steps == 234:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "run._after_fragment = interrupt\n"
        "print(run.train().stopped)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert "interrupted by SIGTERM" in done.stdout
    (folder,) = (tmp_path / "tiny").iterdir()
    assert checkpoints(folder)[-1].name.endswith("234")


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
