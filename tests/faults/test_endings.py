"""However a run ends, nothing of it stays behind but its folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import forked
import psutil
import pytest
from coach.runners.checkpoint import checkpoints

PATIENCE = forked.PATIENCE


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    begin = monotonic()
    while not condition():
        assert monotonic() - begin < PATIENCE, f"waited in vain for {what}"
        sleep(0.05)


class Started:
    """A run with worker processes, started from the command line."""

    def __init__(self, folder: Path, mode: str, *more: str, preset: str = "CartPole_DQN") -> None:
        self.folder = folder
        mode, _, exchange = mode.partition(" ")
        command = ["train", preset, "--mode", mode, *more]
        command += ["--workers", "2", "--worker-kind", "process", "--run-dir", str(folder)]
        command += ["--exchange", exchange or "experience"]
        command += ["--set", "run.envs=2", "--set", "run.log_every=100", "--steps", "10_000_000"]
        command += ["--set", "evaluation.every=0", "--set", "run.fragment_length=16"]
        self.process = forked.coach(*command, output=folder.with_name(f"{folder.name}.txt"))
        wait_for(self._trains, "the first line of progress.csv")
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def _trains(self) -> bool:
        assert self.process.poll() is None, self.process.printed()
        return any(path.stat().st_size for path in self.folder.glob("*/*/progress.csv"))

    @property
    def run(self) -> Path:
        """The run's folder."""
        return next(self.folder.glob("*/*/preset.yaml")).parent

    def all_end(self) -> None:
        """Wait until no worker is left."""
        wait_for(lambda: not any(map(lives, self.children)), "workers to end")


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def segments() -> set[str]:
    place = Path("/dev/shm")
    return set(os.listdir(place)) if place.is_dir() else set()


MODES = ["sync", "async", "sync gradients", "async gradients"]


@pytest.mark.parametrize("mode", MODES)
def test_no_worker_survives_the_run(mode: str, tmp_path: Path) -> None:
    before = segments()
    started = Started(tmp_path, mode)
    assert len(started.children) >= 2
    started.process.kill()
    started.process.wait()
    started.all_end()
    assert segments() <= before


def test_no_job_survives_a_verification(tmp_path: Path) -> None:
    command = ["verify", "CartPole_DQN", "--jobs", "2"]
    command += ["--seeds", "2", "--run-dir", str(tmp_path)]
    command += ["--set", "target.within_steps=10_000_000", "--set", "evaluation.every=0"]
    process = forked.coach(*command)
    wait_for(lambda: len(list(tmp_path.glob("*/*/progress.csv"))) == 2, "both runs to train")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(lives, children)), "the jobs to end")
    for folder in tmp_path.glob("*/*"):
        assert checkpoints(folder)  # to go on from with --resume


@pytest.mark.parametrize(("jobs", "whole_group"), [(1, True), (2, True), (2, False)])
def test_a_signal_ends_a_verification_with_checkpoints(
    jobs: int, whole_group: bool, tmp_path: Path
) -> None:
    command = ["verify", "CartPole_DQN", "--jobs", str(jobs)]
    command += ["--seeds", "3", "--first-seed", "11", "--run-dir", str(tmp_path)]
    command += ["--set", "target.within_steps=10_000_000", "--set", "evaluation.every=0"]
    process = forked.coach(*command, output=tmp_path / "printed.txt")
    lines = tmp_path.glob
    wait_for(lambda: len(list(lines("*/*/progress.csv"))) == jobs, "the runs to train")
    wait_for(lambda: all(path.stat().st_size for path in lines("*/*/progress.csv")), "a line each")
    children = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)  # Ctrl-C, kill -INT
    assert process.wait() == 128 + signal.SIGINT, process.printed()
    assert "Add --resume" in process.printed()
    assert "Traceback" not in process.printed()
    wait_for(lambda: not any(map(lives, children)), "the jobs to end")
    assert len(list(lines("*/*"))) == jobs, "the third seed was begun"
    assert all(checkpoints(folder) for folder in lines("*/*"))


@pytest.mark.parametrize(
    ("mode", "number"),
    zip(MODES, [signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGINT]),
)
def test_a_signal_ends_it_with_a_checkpoint(
    mode: str, number: signal.Signals, tmp_path: Path
) -> None:
    started = Started(tmp_path, mode)
    os.killpg(started.process.pid, number)  # as terminals and schedulers do: workers get it too
    assert started.process.wait() == 128 + number, started.process.printed()
    assert "--resume" in started.process.printed()
    assert "Traceback" not in started.process.printed()
    assert checkpoints(started.run)
    started.all_end()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a hung worker has to be killed")
def test_not_even_a_hung_worker_survives_the_run(tmp_path: Path) -> None:
    tickets = tmp_path / "tickets"
    tickets.mkdir()
    (tickets / "one").touch()
    world = Path(__file__).with_name("faulty_world.py")
    preset = tmp_path / "hanging.yaml"
    preset.write_text(
        f"environment: {{id: '{world}:FaultyWorld', kwargs: {{how: hang, folder: '{tickets}'}}}}\n"
        "agent: {type: dqn, network: {embedder: {type: mlp, hidden: [8]}, heads: {q: q}}}\n"
        "memory: {type: replay, capacity: 500, warmup: 20}\n"
        "run: {steps: 1}\n"
    )
    started = Started(tmp_path / "runs", "async", preset=str(preset))
    wait_for(lambda: not list(tickets.iterdir()), "a worker to hang")
    started.process.kill()
    started.process.wait()
    started.all_end()
