"""Workers that exchange gradients fail: the run goes on, or ends with words and a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from coach.runners.checkpoint import checkpoints
from coach.runners.training import carry_through
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
    assert told.count("of at most 10 restarts") == 2
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
