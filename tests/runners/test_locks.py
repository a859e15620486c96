"""Two processes never train in one folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coach.runners import locks
from coach.runners.locks import LOCK_FILE, LockedRunError, RunLock
from coach.runners.replaying import evaluate_run
from coach.runners.training import Run

Launch = Callable[..., Run]

HOLD = """
import sys, time
from pathlib import Path
from coach.runners import locks
from coach.runners.locks import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedRunError) as raised:
            RunLock(tmp_path)
        assert f"process {other.pid} on {os.uname().nodename}" in raised.value.problem
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    lock = RunLock(tmp_path)  # the operating system has let go, whatever is left of the file
    lock.release()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_file_that_was_replaced_meanwhile_protects_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, real, opened = RunLock(tmp_path), os.open, []

    def slow_open(path: Any, *args: Any) -> int:
        handle = real(path, *args)
        if not opened:  # its holder ends right after we have opened the file
            opened.append(handle)
            first.release()
        return handle

    monkeypatch.setattr(os, "open", slow_open)
    second = RunLock(tmp_path)
    monkeypatch.undo()
    with pytest.raises(LockedRunError):
        RunLock(tmp_path)
    second.release()


def test_a_lock_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("data")
    (tmp_path / "run" / LOCK_FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(Exception, match="cannot be written"):
        RunLock(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "data"


def test_a_run_holds_its_folder_and_can_be_played_meanwhile(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    run = launch(tiny_dqn)
    run.clock.limit = 100
    run.train()
    again = launch(tiny_dqn, run.folder)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    with pytest.raises(LockedRunError, match="in use"):
        launch(tiny_dqn, run.folder)
    played, _ = evaluate_run(run.folder, tiny_dqn, 1, print, last=True)
    assert len(played) == 1
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    again.close()
    launch(tiny_dqn, run.folder).close()


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    assert not RunLock(tmp_path).works
