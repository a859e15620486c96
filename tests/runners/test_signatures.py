"""A user's own runs are told from those of others."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from coach.runners import folder as run_folder
from coach.runners.seals import seal, unsealed
from coach.runners.signatures import can_sign, is_signed, sign
from coach.runners.trust import flag

SETTINGS = {
    "environment": {"id": "my_module:World"},
    "agent": {"type": "dqn"},
    "memory": {"type": "replay"},
    "run": {"steps": 10},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    return tmp_path


def test_signatures_are_of_this_user_and_of_these_bytes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = sign(b"settings")
    assert is_signed(b"settings", mine)
    assert not is_signed(b"settingz", mine)
    assert not is_signed(b"settings", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "hers"))
    assert not is_signed(b"settings", mine)
    assert not is_signed(b"settings", sign(b"settings")[:-1])


def test_only_this_user_can_read_the_key(home: Path) -> None:
    sign(b"")
    (key,) = (home / "mine" / "coach").iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_without_a_key_nothing_is_signed(home: Path) -> None:
    (home / "mine").write_text("a file is in the way")
    assert sign(b"settings") == ""
    assert not can_sign()
    assert not is_signed(b"settings", "")
    assert flag(SETTINGS, []) == ["--trust"]


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_a_damaged_key_signs_nothing(key: bytes, home: Path) -> None:
    sign(b"")
    (home / "mine" / "coach" / "key").write_bytes(key)
    assert not can_sign()


def test_runs_are_signed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder.create(home / "runs", "mine", 1, SETTINGS, [])
    assert run_folder.read(folder).own
    path = folder / "run.json"
    facts = unsealed(json.loads(path.read_bytes()), path)
    whole = path.read_bytes()
    forged = {**facts, "settings": facts["settings"].replace("my_module", "evil")}
    for changed in (forged, {**facts, "plugins": ["evil.py"]}, {**facts, "signature": "é"}):
        path.write_bytes(seal(changed))
        assert not run_folder.read(folder).own
    path.write_bytes(whole)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "hers"))
    record = run_folder.read(folder)
    assert not record.own
    record.change(folder, record.settings, [], 0)  # she goes on with it, having trusted it
    assert run_folder.read(folder).own


def test_a_run_cannot_say_that_it_is_ones_own(home: Path) -> None:
    folder = run_folder.create(home / "runs", "mine", 1, SETTINGS, [])
    path = folder / "run.json"
    facts = unsealed(json.loads(path.read_bytes()), path)
    path.write_bytes(seal({**facts, "signature": "", "own": True}))
    assert not run_folder.read(folder).own
