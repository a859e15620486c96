"""Starting and resuming small runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coach.runners.training import Run, resume, start
from rich.console import Console
from tiny_settings import TINY


@pytest.fixture(params=sorted(TINY))
def tiny(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a small run, one agent after the other."""
    return copy.deepcopy(TINY[request.param])


@pytest.fixture
def tiny_dqn() -> dict[str, Any]:
    return copy.deepcopy(TINY["dqn"])


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Run]:
    """Start a run in a folder of its own, or resume one."""

    def begin(settings: dict[str, Any], folder: Path | None = None) -> Run:
        console = Console(quiet=True)
        if folder is not None:
            return resume(folder, settings, console, [], quiet=True)
        return start("tiny", copy.deepcopy(settings), tmp_path, console, [], quiet=True)

    return begin
