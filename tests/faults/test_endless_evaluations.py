"""Evaluation episodes that never end are cut, count with their return so far, and are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coach.core.errors import FailedEnvironmentError
from coach.environments.making import EnvironmentSettings
from coach.runners.checkpoint import find_latest
from coach.runners.replaying import evaluate_run
from coach.runners.training import resume
from rich.console import Console
from test_environment_failures import begin, settings_for


@pytest.mark.parametrize("background", [False, True])
def test_they_are_cut_and_said(background: bool, tmp_path: Path) -> None:
    settings = settings_for("Endless", envs=1)
    settings["evaluation"] = {"every": 45, "episodes": 3, "background": background, "max_steps": 11}
    run, console = begin(tmp_path, settings)
    assert run.train().evaluation == 11 * 0.5
    rows = (run.folder / "evaluations.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["45", "90"]
    told = console.export_text()
    assert told.count("3 of 3 evaluation episodes did not end within 11 steps") == 2
    assert "evaluation.max_steps" in told
    said: list[str] = []
    played, _ = evaluate_run(run.folder, settings, 2, said.append)
    assert [(episode.value, episode.length) for episode in played] == [(5.5, 11)] * 2
    assert said == [told_of for told_of in said if "2 of 2" in told_of and "max_steps" in told_of]
    assert said


def test_episodes_that_end_by_themselves_are_not_cut(tmp_path: Path) -> None:
    settings = settings_for("World", envs=1)
    settings["evaluation"] = {"every": 45, "episodes": 3, "background": False, "max_steps": 7}
    run, console = begin(tmp_path, settings)
    assert run.train().evaluation == 7 * 0.5
    assert "max_steps" not in console.export_text()


def test_native_environments_count_with_what_they_have_come_to(tmp_path: Path) -> None:
    settings = settings_for("World", envs=1)
    settings["environment"] = {"id": "CartPole-v1", "backend": "gymnasium"}
    settings["evaluation"] = {"every": 45, "episodes": 2, "background": False, "max_steps": 3}
    run, console = begin(tmp_path, settings)
    assert run.train().evaluation == 3
    assert "2 of 2 evaluation episodes did not end within 3 steps" in console.export_text()


@pytest.mark.parametrize(
    ("settings", "stated", "steps"),
    [
        ({"id": "CliffWalking-v1"}, None, 27_000),
        ({"id": "CartPole-v1"}, None, 27_000),
        ({"id": "CartPole-v1", "max_episode_steps": 50_000}, None, 50_000),
        ({"id": "CartPole-v1", "max_episode_steps": 50_000}, 80, 80),
    ],
)
def test_the_default_spoils_no_longer_limit(
    settings: dict[str, Any], stated: int | None, steps: int
) -> None:
    assert EnvironmentSettings(**settings).most_steps(stated) == steps


def test_an_environment_that_exists_once_is_told_how_to_go_on(tmp_path: Path) -> None:
    settings = settings_for("OnlyOne", envs=1)
    settings["evaluation"] = {"every": 45, "episodes": 2, "background": False}
    run, _ = begin(tmp_path, settings)
    with pytest.raises(FailedEnvironmentError, match="port 5123 is taken") as caught:
        run.train()
    assert "evaluation.every=0" in caught.value.remedy
    assert find_latest(run.folder, print).manifest["env_steps"] == 45
    settings["evaluation"] = {"every": 0, "envs": 1}
    again = resume(run.folder, settings, Console(quiet=True), [], quiet=True)
    assert again.train().env_steps == 90
    played, _ = evaluate_run(run.folder, settings, 3, print, last=True)
    assert [episode.length for episode in played] == [7, 7, 7]
