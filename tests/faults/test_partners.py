"""Workers that exchange gradients fail: the run goes on, or ends with words and a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coach.runners.checkpoint import checkpoints
from coach.runners.training import carry_through, resume
from coach.runners.worker import WorkerError
from test_workers import WORDS, begin, faulty


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("how", ["raise", "kill", "hang"])
def test_a_lost_worker_is_reported_and_replaced(mode: str, how: str, tmp_path: Path) -> None:
    settings = faulty(tmp_path, how, 2, mode=mode, exchange="gradients", checkpoint_every=50)
    settings["environment"]["kwargs"]["spare"] = True
    settings["run"]["steps"] = 4_000 if mode == "async" else 300  # until the partner is there
    run, console = begin(tmp_path, settings)
    run, result = carry_through(run, [])
    assert result.env_steps >= settings["run"]["steps"]
    told = console.export_text()
    assert told.count("of at most") >= 2  # a slow one may be taken for hung
    assert WORDS[how] in told
    assert not list((tmp_path / "tickets").iterdir())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_too_many_failures_end_the_run_with_a_checkpoint(mode: str, tmp_path: Path) -> None:
    run_settings = {"mode": mode, "exchange": "gradients", "max_restarts": 1}
    run, _ = begin(tmp_path, faulty(tmp_path, "raise", 9, **run_settings))
    with pytest.raises(WorkerError, match="simulator lost its licence") as caught:
        carry_through(run, [])
    assert "run.max_restarts" in str(caught.value)
    assert checkpoints(run.folder)


def test_after_a_loss_the_run_goes_on_as_it_was_told(tmp_path: Path) -> None:
    """Settings given on resuming are not those of preset.yaml."""
    settings = faulty(tmp_path, "raise", 0, mode="sync", exchange="gradients", steps=100)
    settings["environment"]["kwargs"]["spare"] = True
    first, console = begin(tmp_path, settings)
    first.train()
    (tmp_path / "tickets" / "one").touch()
    settings["run"]["steps"] = 400
    _, result = carry_through(resume(first.folder, settings, console, [], quiet=True), [])
    assert "1 of at most 10 restarts" in console.export_text()
    assert result.env_steps >= 400


def test_every_kept_checkpoint_keeps_the_rows_of_partners(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "raise", 0, mode="async", exchange="gradients", steps=2_000)
    settings["run"] |= {"checkpoint_every": 200, "keep_checkpoints": 3}
    first, console = begin(tmp_path, settings)
    first.train()
    settings["run"]["steps"] = 4_000
    resume(first.folder, settings, console, [], quiet=True).train()
    listed: set[str] = set()
    for folder in checkpoints(first.folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        listed |= {chunk["file"] for chunk in manifest["journals"]["replay-worker-1"]}
    there = {path.name for path in (first.folder / "replay-worker-1").iterdir()}
    assert listed == there != set()


def test_a_damaged_chunk_of_a_partner_is_noticed(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "raise", 0, mode="sync", exchange="gradients", steps=200)
    first, console = begin(tmp_path, settings)
    first.train()
    for chunk in (first.folder / "replay-worker-1").iterdir():
        chunk.write_bytes(b"")
    again = resume(first.folder, settings, console, [], quiet=True)
    again.experiment.source.close()
    assert "is damaged: its checksum does not match" in console.export_text()
    assert again.clock.env_steps == 0  # of the checkpoint before any rows were stored


def test_a_partner_that_cannot_start_says_why(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "raise", 0, mode="sync", exchange="gradients", max_restarts=0)
    settings["environment"]["kwargs"]["refuses"] = True
    run, _ = begin(tmp_path, settings)
    with pytest.raises(WorkerError, match="no licence for a second simulator"):
        carry_through(run, [])
