"""Run folders that somebody has made up are refused in words, however well they are sealed."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coach.core.errors import CheckpointError, CoachError
from coach.runners import folder as run_folder
from coach.runners.checkpoint import checkpoints
from coach.runners.replaying import evaluate_run
from coach.runners.seals import FORMAT, read_sealed, seal
from coach.runners.storage import write_file
from coach.runners.training import resume, start
from rich.console import Console
from tiny_settings import TINY


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = copy.deepcopy(TINY["dqn"])
    settings["run"] |= {"steps": 100, "keep_checkpoints": 1}
    run = start("x", settings, tmp_path_factory.mktemp("x"), Console(quiet=True), [], quiet=True)
    run.train()
    return run.folder


@pytest.fixture
def forged(genuine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(genuine, tmp_path / "forged"))


def with_state(folder: Path, forge: Callable[[dict[str, Any]], bytes]) -> None:
    (newest,) = checkpoints(folder)
    record = write_file(
        newest / "state.json", forge(json.loads((newest / "state.json").read_bytes()))
    )
    manifest = read_sealed(newest / "manifest.json")
    manifest["files"]["state.json"] = record
    write_file(newest / "manifest.json", seal(manifest))


def go_on(folder: Path) -> None:
    settings = run_folder.read(folder).settings
    settings["run"]["steps"] = 120
    run = resume(folder, settings, Console(quiet=True), [], quiet=True)
    run.close()


def replaced(prefix: str, value: Any) -> Callable[[dict[str, Any]], bytes]:
    """The state with another value for every name that begins so."""

    def forge(state: dict[str, Any]) -> bytes:
        names = [name for name in state if name.startswith(prefix)]
        assert names
        return json.dumps(state | dict.fromkeys(names, value)).encode()

    return forge


@pytest.mark.parametrize(
    "forge",
    [
        lambda state: b"[" * 1_000_000,
        lambda state: b"[]",
        lambda state: b"{}",
        replaced("source/", "x"),
        replaced("source/", None),
        replaced("log/", [1]),
        replaced("memory/", "x"),
        replaced("learner/", []),
        replaced("evaluations/", [5]),
    ],
)
def test_states(forge: Callable[[dict[str, Any]], bytes], forged: Path) -> None:
    with_state(forged, forge)
    with pytest.raises(CheckpointError):
        go_on(forged)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("changes", [{"a": 1}]),
        ("changes", [7]),
        ("changes", {}),
        ("plugins", [7]),
        ("plugins", "abc"),
        ("rendered", [None]),
        ("settings", "environment: 5\nagent: 6\nmemory: 7\nrun: 8"),
        ("settings", {}),
        ("preset", None),
        ("unknown", 1),
    ],
)
def test_records(entry: str, value: Any, forged: Path) -> None:
    facts = read_sealed(forged / "run.json") | {entry: value}
    (forged / "run.json").write_bytes(seal(facts))
    with pytest.raises(CheckpointError, match="damaged"):
        run_folder.read(forged)


@pytest.mark.parametrize("value", ["many", None, [1]])
def test_facts_of_a_policy(value: Any, forged: Path) -> None:
    (newest,) = checkpoints(forged)
    weights = read_sealed(newest / "manifest.json")["files"]["tensors.safetensors"]
    (forged / "best").mkdir(exist_ok=True)
    name = f"agent-{'0' * 16}.safetensors"
    shutil.copy(newest / "tensors.safetensors", forged / "best" / name)
    facts = {"format": FORMAT, "file": {**weights, "name": name}, "env_steps": value}
    (forged / "best" / "agent.json").write_bytes(seal(facts))
    with pytest.raises(CoachError, match="it has no steps"):
        evaluate_run(forged, run_folder.read(forged).settings, 1, print)
