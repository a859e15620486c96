"""However a run ends, nothing of it stays behind but its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest
from coach.runners.checkpoint import checkpoints

PATIENCE = 120.0  # generous: nothing here is about speed


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    begin = monotonic()
    while not condition():
        assert monotonic() - begin < PATIENCE, f"waited in vain for {what}"
        sleep(0.05)


class Started:
    """A run with worker processes, started from the command line."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "coach_cli", "train", "CartPole_DQN", "--mode", mode]
        command += ["--workers", "2", "--worker-kind", "process", "--run-dir", str(folder)]
        command += ["--set", "run.envs=2", "--set", "run.log_every=100", "--steps", "10_000_000"]
        command += ["--set", "evaluation.every=0", "--set", "run.fragment_length=16"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        wait_for(self._trains, "the first line of progress.csv")
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def _trains(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[0].decode()
        return any(path.stat().st_size for path in self.folder.glob("*/*/progress.csv"))

    @property
    def run(self) -> Path:
        """The run's folder."""
        return next(self.folder.glob("CartPole_DQN/*"))


def segments() -> set[str]:
    place = Path("/dev/shm")
    return set(os.listdir(place)) if place.is_dir() else set()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_no_worker_survives_the_run(mode: str, tmp_path: Path) -> None:
    before = segments()
    started = Started(tmp_path, mode)
    assert len(started.children) >= 2
    started.process.kill()
    started.process.communicate()
    wait_for(lambda: not any(child.is_running() for child in started.children), "workers to end")
    assert segments() <= before


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_interrupt_ends_it_with_a_checkpoint(mode: str, tmp_path: Path) -> None:
    started = Started(tmp_path, mode)
    os.killpg(started.process.pid, signal.SIGINT)  # as the terminal does it: workers get it too
    told, _ = started.process.communicate(timeout=PATIENCE)
    assert started.process.returncode == 130, told.decode()
    assert b"--resume" in told
    assert b"Traceback" not in told
    assert checkpoints(started.run)
    wait_for(lambda: not any(child.is_running() for child in started.children), "workers to end")
