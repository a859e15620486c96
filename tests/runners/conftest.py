"""Starting and resuming small runs."""

from __future__ import annotations

import copy
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fingerprint
import pytest
from coach.runners.training import Result, Run, resume, start
from fork_server import PRELOADED
from rich.console import Console
from tiny_settings import TINY


@pytest.fixture(params=sorted(TINY))
def tiny(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a small run, one agent after the other."""
    return copy.deepcopy(TINY[request.param])


@pytest.fixture
def tiny_dqn() -> dict[str, Any]:
    return copy.deepcopy(TINY["dqn"])


@dataclass
class Finished:
    """A run that has been trained to its end.

    Args:
        run: whose folder is read and never changed.
        result: of its training.
        fingerprint: as `fingerprint.of_run` gives it.
    """

    run: Run
    result: Result
    fingerprint: dict[str, object]

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.run.folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Finished]:
    """The finished run of some settings; tests with the same settings share it."""
    made: dict[str, Finished] = {}

    def of(settings: dict[str, Any]) -> Finished:
        key = json.dumps(settings)
        if key not in made:
            own, root = copy.deepcopy(settings), tmp_path_factory.mktemp("whole")
            run = start("tiny", own, root, Console(quiet=True), [], quiet=True)
            result = run.train()
            made[key] = Finished(run, result, fingerprint.of_run(run))
        return made[key]

    return of


@pytest.fixture
def ready_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where new interpreters would start, fork from a process that has imported everything."""
    real = multiprocessing.get_context
    real("forkserver").set_forkserver_preload(PRELOADED)
    forked = {"spawn": "forkserver"}
    monkeypatch.setattr(
        multiprocessing, "get_context", lambda method=None: real(forked.get(method, method))
    )


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Run]:
    """Start a run in a folder of its own, or resume one."""

    def begin(settings: dict[str, Any], folder: Path | None = None) -> Run:
        console = Console(quiet=True)
        if folder is not None:
            return resume(folder, settings, console, [], quiet=True)
        return start("tiny", copy.deepcopy(settings), tmp_path, console, [], quiet=True)

    return begin
