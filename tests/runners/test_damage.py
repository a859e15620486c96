"""Damaged files of a run are noticed, kept aside, and made good for as far as that goes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coach.core.source import Episode
from coach.runners.checkpoint import checkpoints
from coach.runners.replaying import evaluate_run
from coach.runners.resuming import seconds_so_far
from coach.runners.training import Run, resume, start
from rich.console import Console
from tiny_settings import TINY

Launch = Callable[..., Run]


def begun(settings: dict[str, Any], root: Path, steps: int = 300) -> Run:
    run = start("tiny", settings, root, Console(quiet=True), [], quiet=True)
    run.clock.limit = steps
    run.train()
    return run


def resumed(settings: dict[str, Any], folder: Path) -> tuple[Run, str]:
    """The run, and what it has said."""
    said = io.StringIO()
    run = resume(folder, settings, Console(file=said, width=1_000), [], quiet=True)
    run.close()
    return run, said.getvalue()


def aside(folder: Path, name: str) -> list[Path]:
    return list(folder.glob(f"{name}.damaged-*"))


def flip(data: bytes, at: float) -> bytes:
    changed = bytearray(data)
    changed[int(len(data) * at)] ^= 2
    return bytes(changed)


def test_rows_after_a_damaged_table_follow_as_ever(
    tiny_dqn: dict[str, Any], tmp_path: Path, launch: Launch
) -> None:
    folder = begun(tiny_dqn, tmp_path, steps=200).folder
    header, *before = (folder / "progress.csv").read_text().splitlines()
    (folder / "progress.csv").write_bytes(b"\xff\x00rubbish")
    (folder / "evaluations.csv").unlink()
    rest = launch(tiny_dqn, folder)
    rest.clock.limit = 300
    rest.train()
    assert len(before) == 4
    rows = (folder / "progress.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == [header.split(",")[0], "250", "300"]
    _, said = resumed(tiny_dqn, folder)  # its checkpoints know the shorter table
    assert said == ""
    assert len(aside(folder, "progress.csv")) == 1


@pytest.mark.parametrize("text", ['{"seconds": "soon"}', "{", "[[[", "\x00\x01"])
def test_a_damaged_result_does_not_block(
    text: str, tiny_dqn: dict[str, Any], tmp_path: Path
) -> None:
    folder = begun(tiny_dqn, tmp_path, steps=100).folder
    (folder / "result.json").write_text(text)
    _, said = resumed(tiny_dqn, folder)
    assert f"{folder / 'result.json'} is damaged" in said
    assert len(aside(folder, "result.json")) == 1


def test_a_changed_result_is_noticed(tiny_dqn: dict[str, Any], tmp_path: Path) -> None:
    folder = begun(tiny_dqn, tmp_path, steps=100).folder
    facts = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**facts, "seconds": 10 * facts["seconds"]}))
    _, said = resumed(tiny_dqn, folder)
    assert "checksum" in said
    assert seconds_so_far(folder, said.join) == 0.0


def chunks_of(folder: Path) -> list[dict[str, Any]]:
    manifest = json.loads((checkpoints(folder)[-1] / "manifest.json").read_text())
    found: list[dict[str, Any]] = manifest["journal"]
    return found


def test_an_old_chunk_that_is_lost_costs_its_rows_alone(
    tiny_dqn: dict[str, Any], tmp_path: Path, launch: Launch
) -> None:
    # A ring of 240 steps, in chunks of 100: at step 300 it holds the rows after step 60.
    folder = begun(tiny_dqn, tmp_path, steps=300).folder
    path = folder / "replay" / chunks_of(folder)[0]["file"]
    path.write_bytes(flip(path.read_bytes(), 0.5))
    _, said = resumed(tiny_dqn, folder)
    assert "40 stored steps of the replay are lost, the 200 newest are restored" in said
    assert "not to the same numbers" in said
    rest = launch(tiny_dqn, folder)
    rest.clock.limit = 320
    rest.train()
    last, said = resumed(tiny_dqn, folder)
    assert said == "", "the next checkpoint is whole"
    assert last.experiment.memory.oldest() == [50, 50]
    assert last.clock.env_steps == 320


def test_a_replay_that_is_lost_fills_again(
    tiny_dqn: dict[str, Any], tmp_path: Path, launch: Launch
) -> None:
    folder = begun(tiny_dqn, tmp_path, steps=300).folder
    for path in (folder / "replay").iterdir():
        path.write_bytes(b"")
    run, said = resumed(tiny_dqn, folder)
    assert "Nothing of the replay could be restored" in said
    assert run.experiment.learner.version > 0
    rest = launch(tiny_dqn, folder)
    rest.clock.limit = 400
    rest.train()
    assert rest.experiment.learner.version > run.experiment.learner.version


def test_playing_needs_no_replay(tiny_dqn: dict[str, Any], tmp_path: Path) -> None:
    folder = begun(tiny_dqn, tmp_path, steps=300).folder
    settings = TINY["dqn"]
    wanted, facts = evaluate_run(folder, settings, 3, print, last=True)
    for path in (folder / "replay").iterdir():
        path.unlink()
    said: list[str] = []
    found: tuple[list[Episode], Any] = evaluate_run(folder, settings, 3, said.append, last=True)
    assert found == (wanted, facts)
    assert said == []
    assert facts["env_steps"] == 300
