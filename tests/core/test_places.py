"""Paths as they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from coach.core.places import short, typed_here
from coach.runners.trust import command


def test_paths_in_the_folder_of_the_command_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    here.mkdir()
    away.mkdir()
    monkeypatch.chdir(here)
    with typed_here():
        monkeypatch.chdir(away)  # as an environment may
        assert short(here / "runs" / "a b") == "runs/a b"
        assert short(here) == "."
        assert short(away / "runs") == str(away / "runs")
        assert short(tmp_path / "here2") == str(tmp_path / "here2")
        assert short(Path("given/by/hand")) == "given/by/hand"
        assert command("coach", "train", here / "runs" / "a b") == "coach train 'runs/a b'"
        assert command("coach", "train", here / "--runs") == "coach train ./--runs"
    assert short(away / "runs") == "runs"
