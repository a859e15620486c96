"""A signal ends a run wherever it is, with a checkpoint, and no signal spoils one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from coach.runners import interrupts
from coach.runners.checkpoint import checkpoints, find_latest
from coach.runners.training import resume
from rich.console import Console
from test_endings import PATIENCE, wait_for
from test_environment_failures import begin, command, mend, settings_for

#: Where the environment sleeps, how often it is signalled, and the steps of the checkpoint.
PLACES: dict[str, tuple[dict[str, Any], int]] = {
    "step": ({"where": "step", "at": 40}, 39),
    "reset": ({"where": "reset", "at": 4}, 20),
    "close": ({"where": "close"}, 90),
}


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_an_environment_that_does_not_return_is_left(
    place: str, signals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, steps = PLACES[place]
    woke = tmp_path / "woke"
    settings = settings_for("Sleeps", {**world, "signals": signals, "woke": str(woke)}, envs=1)
    run, console = begin(tmp_path, settings)
    result = run.train()
    assert result.stopped == "interrupted by SIGTERM"
    assert not woke.exists()
    manifest = find_latest(run.folder, print).manifest
    assert manifest["env_steps"] == steps
    if place == "close":
        assert "did not close in time" in console.export_text()
    else:
        mend(monkeypatch)
        again = resume(run.folder, settings, Console(quiet=True), [], quiet=True)
        assert again.train().env_steps == 90


def test_an_evaluation_that_does_not_return_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for("Sleeps", envs=1)
    settings["environment"]["evaluation_kwargs"] = {"at": 3, "signals": 2}
    settings["evaluation"] = {"every": 30, "episodes": 2, "background": False}
    run, _ = begin(tmp_path, settings)
    assert run.train().stopped == "interrupted by SIGTERM"
    assert run.clock.env_steps == 30
    assert not (run.folder / "evaluations.csv").exists()
    mend(monkeypatch)
    again = resume(run.folder, settings, Console(quiet=True), [], quiet=True)
    again.train()
    rows = (run.folder / "evaluations.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["env_steps", "30", "60", "90"]


def test_updates_that_are_owed_in_great_number_are_broken_off(tmp_path: Path) -> None:
    settings = settings_for("Signals", {"at": 31}, envs=1)
    settings["memory"]["updates_per_step"] = 10_000_000
    settings["memory"]["warmup"] = 30
    run, _ = begin(tmp_path, settings)
    assert run.train().stopped == "interrupted by SIGINT"
    assert checkpoints(run.folder)[-1].name == f"step-{31:012d}"
    assert 0 < run.experiment.learner.version < 10_000_000


def test_no_signal_spoils_a_checkpoint(tmp_path: Path) -> None:
    run, _ = begin(tmp_path, settings_for("Signals", {"at": 33}, envs=1))
    save, stages = run.checkpointer.save, []

    def interrupted(*args: Any, **kwargs: Any) -> None:
        for stage in ("before", "after"):
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            if stage == "before":
                save(*args, **kwargs)
            stages.append(stage)

    run.checkpointer.save = interrupted  # type: ignore[method-assign]
    assert run.train().stopped == "interrupted by SIGINT"
    assert stages == ["before", "after"]
    assert find_latest(run.folder, print).manifest["env_steps"] == 33


def test_a_signal_costs_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way comes to its end, if that does not take long."""
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", PATIENCE)  # a busy machine takes long
    settings = settings_for("Signals", {"at": 33}, envs=1)
    broken, _ = begin(tmp_path / "broken", settings)
    assert broken.train().env_steps == 33
    mend(monkeypatch)
    whole, _ = begin(tmp_path / "whole", settings)
    whole.train()
    again = resume(broken.folder, settings, Console(quiet=True), [], quiet=True)
    again.train()
    one = whole.experiment.agent.state_dict()
    two = again.experiment.agent.state_dict()
    assert all(one[name].equal(two[name]) for name in one)


def test_environments_do_not_take_the_signals_of_a_run(tmp_path: Path) -> None:
    settings = settings_for("TakesSignals", envs=1)
    settings["environment"]["evaluation_kwargs"] = {"at": 3}
    settings["evaluation"] = {"every": 30, "episodes": 2, "background": False}
    run, _ = begin(tmp_path, settings)
    assert run.train().stopped == "interrupted by SIGTERM"
    assert checkpoints(run.folder)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no hang-ups here")
def test_a_signal_while_environments_are_made_ends_the_start(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    kwargs = f"{{where: make, signals: 0, mark: '{mark}'}}"
    process = forked.coach(*command(tmp_path, "Sleeps", kwargs), output=tmp_path / "printed.txt")
    wait_for(mark.exists, "an environment to be made")
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait() == 128 + signal.SIGHUP, process.printed()
    assert "Interrupted by SIGHUP" in process.printed()
    assert "Traceback" not in process.printed()


def test_a_closed_pipe_ends_output_and_not_the_run(tmp_path: Path) -> None:
    """`coach train ... | head -1`, with an environment that prints in every step."""
    more = ["--steps", "1_000", "--set", "evaluation.every=500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "coach_cli", *command(tmp_path, "Prints", "{}", *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == 0
    (run,) = (tmp_path / "runs").glob("*/*")
    assert checkpoints(run)[-1].name == f"step-{1_000:012d}"
    assert (run / "result.json").exists()
