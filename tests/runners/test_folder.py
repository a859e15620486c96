"""A run folder is data: checked before it is believed, and found again by what it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from coach.core.errors import CheckpointError, CoachError
from coach.runners import folder as run_folder
from coach.runners.checkpoint import find_latest, load_policy
from coach.runners.journal import Journal
from coach.runners.seals import FORMAT, OtherVersionError, parse_settings, seal
from coach.runners.storage import read_bounded, to_json, unpack

SETTINGS: dict[str, Any] = {
    "about": "a test",
    "environment": {"id": "CartPole-v1", "kwargs": {"odd": {1: 2.5}}},
    "agent": {"type": "dqn"},
    "memory": {"type": "replay"},
    "optimizer": {"type": "adam", "lr": 0.0023},
    "run": {"steps": 10, "seed": 4},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder.create(tmp_path, "mine", 4, SETTINGS, [])


def test_settings_come_back_as_they_were(folder: Path) -> None:
    record = run_folder.read(folder)
    assert record.settings == SETTINGS
    assert run_folder.edits(folder, record) == ""


def test_no_bit_of_preset_yaml_can_change_unnoticed(folder: Path) -> None:
    path = folder / "preset.yaml"
    data = path.read_bytes()
    record = run_folder.read(folder)
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])
        with pytest.raises(CoachError, match=r"not as the run has written it|damaged"):
            run_folder.refuse_edits(folder, record)
    for length in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CoachError):
            run_folder.refuse_edits(folder, record)


def test_no_bit_of_run_json_can_change_unnoticed(folder: Path) -> None:
    path = folder / "run.json"
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CoachError, match=r"run\.json"):
            run_folder.read(folder)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        run_folder.read(folder)


def test_an_edit_is_named_with_both_remedies(folder: Path) -> None:
    path = folder / "preset.yaml"
    path.write_text(path.read_text().replace("lr: 0.0023", "lr: 8.0023"))
    with pytest.raises(CoachError) as raised:
        run_folder.refuse_edits(folder, run_folder.read(folder))
    assert "optimizer.lr is 8.0023, the run has 0.0023" in raised.value.problem
    assert "--accept-edits" in raised.value.remedy
    assert "rm " in raised.value.remedy
    assert run_folder.edited_settings(folder)["optimizer"]["lr"] == 8.0023
    path.unlink()
    run_folder.refuse_edits(folder, run_folder.read(folder))  # it is written again on resume


def test_runs_of_earlier_versions_are_refused(folder: Path) -> None:
    """Their actions are in the environment's units, which no number in them shows."""
    facts = json.loads((folder / "run.json").read_text())
    del facts["seal"]
    never_sealed = {"preset": "mine", "plugins": ["a.py"], "versions": {}, "git": None}
    for old in (to_json(never_sealed), seal({**facts, "format": 1})):
        (folder / "run.json").write_bytes(old)
        with pytest.raises(OtherVersionError, match=r"earlier version.*\n.*Train the preset anew"):
            run_folder.read(folder)


@pytest.mark.parametrize(
    ("seed", "wanted"),
    [
        (1, "20260102-000000-seed1-10"),
        (10, "20260102-000001-seed10"),
        (None, "20260102-000001-seed10"),
        (2, "20260101-000000-seed2"),
    ],
)
def test_the_newest_run_of_exactly_that_seed(seed: int | None, wanted: str, tmp_path: Path) -> None:
    names = ("20260102-000000-seed1", "20260102-000000-seed1-2", "20260102-000000-seed1-10")
    others = ("20260102-000001-seed10", "20260101-000000-seed2", "20260103-notes", "seed1")
    for name in (*names, *others):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "run.json").write_text("{}")
    assert run_folder.latest(tmp_path, "mine", seed).name == wanted


def test_a_seed_that_is_not_there(folder: Path) -> None:
    with pytest.raises(CoachError, match="no run of mine with seed 44"):
        run_folder.latest(folder.parents[1], "mine", 44)


# What a stranger may have put into a folder.


def aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        aliases(9),
        "a: " + "[" * 5_000,
        "a: " + "{b: " * 300 + "1" + "}" * 300,
        "a: &a [*a]",
        "a: !!python/object/apply:os.getcwd []",
        "- 1",
        "1: 2",
        "\x00",
    ],
    ids=["aliases", "depth", "closed depth", "endless", "tag", "list", "key", "null"],
)
def test_hostile_settings_are_refused_at_once(text: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        parse_settings(text.encode(), tmp_path / "preset.yaml")


def test_aliases_that_stand_for_little_are_read(tmp_path: Path) -> None:
    found = parse_settings(b"a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", tmp_path / "preset.yaml")
    assert found == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_sizes_are_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**42)  # no block of it is on the disk
    with pytest.raises(CheckpointError, match="are read"):
        read_bounded(large)
    with pytest.raises(CheckpointError, match="at most 1,000"):
        read_bounded(large, 1_000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(CheckpointError, match="no regular file"):
        read_bounded(tmp_path / "run.json", 1_000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        b"\xff" * 8 + b"{}",
        (2**40).to_bytes(8, "little"),
        b"\x02" + bytes(7) + b"[]",
    ],
)
def test_hostile_tensors_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        unpack(data)


SUM = "0" * 64
CHUNK = {"file": "rows-0-1.safetensors", "reached": [1], "bytes": 1, "sha256": SUM}
MANIFEST: dict[str, Any] = {
    "format": FORMAT,
    "env_steps": 5,
    "workers": 1,
    "files": {name: {"bytes": 1, "sha256": SUM} for name in ("tensors.safetensors", "state.json")},
    "journal": [],
    "saved": [],
    "journals": {},
}


@pytest.mark.parametrize(
    "changed",
    [
        {"journals": {"../../elsewhere": []}},
        {"journals": {"/tmp": []}},
        {"journals": {"replay-worker-1/..": []}},
        {"journals": {"": []}},
        {"journal": [{**CHUNK, "file": "../rows-0-1.safetensors"}]},
        {"journal": [{**CHUNK, "file": "/etc/passwd"}]},
        {"journal": [{**CHUNK, "reached": "many"}]},
        {"journal": [{**CHUNK, "bytes": -1}]},
        {"files": {"../state.json": {"bytes": 1, "sha256": SUM}}},
        {"files": {}},
        {"env_steps": "5"},
        {"env_steps": -5},
        {"workers": 0},
        {"saved": [[[]]]},
    ],
    ids=str,
)
def test_a_manifest_leads_nowhere_else(changed: dict[str, Any], folder: Path) -> None:
    checkpoint = folder / "checkpoints" / "step-000000000005"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_bytes(seal(MANIFEST | changed))
    said: list[str] = []
    with pytest.raises(CheckpointError, match="All checkpoints"):
        find_latest(folder, said.append)
    assert "manifest.json is damaged, or not from a run" in said[0] or "missing" in said[0]


@pytest.mark.parametrize("name", ["../agent.safetensors", "/x/agent.safetensors", "agent.py"])
def test_a_policy_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    facts = {"format": FORMAT, "file": {"name": name, "bytes": 1, "sha256": SUM}}
    (tmp_path / "agent.json").write_bytes(seal(facts))
    with pytest.raises(CheckpointError, match="damaged, or not from a run"):
        load_policy(tmp_path)


def test_only_chunks_are_ever_removed(tmp_path: Path) -> None:
    for name in ("rows-0-1.safetensors", "rows-1-2.safetensors", "notes.txt", ".hidden"):
        (tmp_path / "replay").mkdir(exist_ok=True)
        (tmp_path / "replay" / name).touch()
    Journal(tmp_path / "replay").keep_only({"rows-1-2.safetensors"})
    left = sorted(path.name for path in (tmp_path / "replay").iterdir())
    assert left == [".hidden", "notes.txt", "rows-1-2.safetensors"]


@pytest.mark.parametrize("name", ["replay", "best", "checkpoints", "progress.csv", "videos"])
def test_links_that_lead_out_are_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=f"{name} is a link that leads out"):
        run_folder.read(folder)
    (folder / name).unlink()
    (folder / "inside").mkdir()
    (folder / name).symlink_to("inside")
    run_folder.read(folder)
