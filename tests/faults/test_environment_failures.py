"""An environment that fails in mode single ends the run with words, a checkpoint and a status."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import forked
import psutil
import pytest
from coach.core.errors import FailedEnvironmentError
from coach.core.registry import load_plugin
from coach.environments import calls
from coach.runners.checkpoint import checkpoints
from coach.runners.training import Run, resume, start
from rich.console import Console

WORLDS = Path(__file__).with_name("broken_worlds.py")


def settings_for(world: str, kwargs: dict[str, Any] | None = None, **run: Any) -> dict[str, Any]:
    return {
        "environment": {"id": f"{WORLDS}:{world}", "kwargs": kwargs or {}},
        "agent": {"type": "dqn", "network": {"embedder": {"type": "mlp", "hidden": [8]}, "heads": {"q": "q"}}},
        "memory": {"type": "replay", "capacity": 400, "warmup": 20, "batch_size": 8},
        "run": {"steps": 90, "envs": 2, "fragment_length": 1, **run},
        "evaluation": {"every": 0},
    }  # fmt: skip


def command(tmp_path: Path, world: str, kwargs: str, *more: str) -> list[str]:
    preset = tmp_path / "small.yaml"
    preset.write_text(
        f"environment: {{id: '{WORLDS}:{world}', kwargs: {kwargs}}}\n"
        "agent: {type: dqn, network: {embedder: {type: mlp, hidden: [8]}, heads: {q: q}}}\n"
        "memory: {type: replay, capacity: 500, warmup: 20}\n"
        "run: {steps: 10_000_000, envs: 2, log_every: 100}\n"
        "evaluation: {every: 0}\n"
    )
    return ["train", str(preset), "--run-dir", str(tmp_path / "runs"), *more]


def mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes wrong in environments from now on."""
    monkeypatch.setattr(load_plugin(str(WORLDS)).World, "sound", True)


def begin(tmp_path: Path, settings: dict[str, Any]) -> tuple[Run, Console]:
    console = Console(record=True, width=200)
    return start("broken", settings, tmp_path / "runs", console, [], quiet=True), console


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ("Raises", "ValueError: the valve is stuck"),
        ("LosesFile", "No such file or directory: '/no/such/place/map.bin'"),
        ("LosesConnection", "Connection refused"),
        ("Exits", "sys.exit(3)"),
    ],
)
def test_a_failed_step_is_named_and_what_was_learned_is_kept(
    world: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(world, {"at": 33})
    run, _ = begin(tmp_path, settings)
    with pytest.raises(FailedEnvironmentError) as caught:
        run.train()
    told = str(caught.value)
    assert words in told
    assert world in told
    assert "step() (environment 0, episode 4, step 5)" in told  # 33 = 4 * 7 + 5
    assert "in strike" in told  # the environment's own frame
    assert "cannot be written" not in told
    assert f"{run.folder} --resume" in told
    assert caught.value.exit_status == 3
    assert checkpoints(run.folder)[-1].name == f"step-{2 * 32:012d}"
    mend(monkeypatch)
    again = resume(run.folder, settings, Console(quiet=True), [], quiet=True)
    assert again.experiment.learner.version > 0
    assert again.train().env_steps == 90


def test_a_failed_reset_is_named(tmp_path: Path) -> None:
    run, _ = begin(tmp_path, settings_for("RaisesAtReset"))
    with pytest.raises(FailedEnvironmentError) as caught:
        run.train()
    assert "reset() (environment 0, episode 2)" in str(caught.value)
    assert "LookupError: no level of that number" in str(caught.value)
    assert checkpoints(run.folder)


def test_what_close_raises_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls.forget_what_was_said()
    run, _ = begin(tmp_path, settings_for("RaisesInClose"))
    with caplog.at_level(logging.WARNING):
        assert run.train().env_steps == 90
    told = [record.getMessage() for record in caplog.records]
    assert sum("failed in close()" in text for text in told) == 1
    assert "AttributeError: the viewer is gone" in caplog.text


def test_a_run_stays_in_its_folder_wherever_the_environment_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_for("Wanders", envs=1, checkpoint_every=30, log_every=20)
    settings["evaluation"] = {"every": 30, "episodes": 1, "background": False}
    run, _ = begin(Path(), settings)
    assert run.train().env_steps == 90
    (folder,) = (tmp_path / "runs").glob("broken/*")
    assert len(checkpoints(folder)) == 3
    assert {path.name for path in folder.iterdir()} >= {"progress.csv", "evaluations.csv", "best"}


@pytest.mark.parametrize("mode", [[], ["--mode", "sync", "--worker-kind", "process"]])
def test_what_an_environment_leaves_behind_does_not_keep_the_command(
    mode: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "followed"
    file.touch()
    typed = command(tmp_path, "LeavesChildren", f"{{file: '{file}'}}", "--steps", "200", *mode)
    process = forked.coach(*typed, output=tmp_path / "printed.txt")
    assert process.wait() == 0, process.printed()
    assert "Ended processes that were left behind: tail" in process.printed()
    assert "Threads that were left behind are not waited for" in process.printed()
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if str(file) in line]


def test_two_that_cannot_be_tried_side_by_side_get_processes(tmp_path: Path) -> None:
    settings = settings_for("OnlyOne", mode="sync", workers=2)
    run, _ = begin(tmp_path, settings)
    assert "2 processes" in run.experiment.note
    assert "port 5123 is taken" in run.experiment.note
    assert run.train().env_steps >= 90


def test_a_run_that_is_too_short_says_so_and_leaves_a_line(tmp_path: Path) -> None:
    settings = settings_for("World", envs=1)
    settings["memory"]["warmup"] = 200
    run, console = begin(tmp_path, settings)
    run.train()
    told = console.export_text()
    assert "memory.warmup is 200 steps, and the run has 90" in told
    assert "No update was made" in told
    lines = (run.folder / "progress.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["env_steps", "90"]
    settings["run"]["steps"] = 1_100
    again = resume(run.folder, settings, Console(quiet=True), [], quiet=True)
    again.train()
    lines = (run.folder / "progress.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["env_steps", "1000"]
