"""A process that judges policies fails, and the run goes on or says why it cannot."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import forked
import psutil
import pytest
from coach.runners.checkpoint import checkpoints
from coach.runners.training import Run, start
from coach.runners.worker import WorkerError
from rich.console import Console

WORLD = f"{Path(__file__).with_name('faulty_world.py')}:FaultyWorld"
WORDS = {
    "raise": "the simulator lost its licence",
    "kill": "killed by SIGKILL",
    "hang": "run.worker_timeout",
}
PATIENCE = 600.0  # generous: nothing here is about speed


def begin(tmp_path: Path, how: str, restarts: int = 3, **more: Any) -> tuple[Run, Console]:
    """A run whose environment fails where policies are judged, and only there."""
    tickets = tmp_path / "tickets"
    tickets.mkdir()
    world = {"how": how, "folder": str(tickets), "spare": True, **more}
    run = {"worker_timeout": 3, "max_restarts": 100} if how == "hang" else {}
    settings: dict[str, Any] = {
        "environment": {"id": WORLD, "kwargs": world},
        "agent": {"type": "dqn", "network": {"embedder": {"type": "mlp", "hidden": [8]}, "heads": {"q": "q"}}},
        "memory": {"type": "replay", "capacity": 500, "warmup": 20},
        "run": {"steps": 1_000_000, "max_restarts": restarts, **run},
        "evaluation": {"every": 100, "episodes": 20, "background": True},
    }  # fmt: skip
    console = Console(record=True, width=200)
    return start("faulty", settings, tmp_path / "runs", console, [], quiet=True), console


def train_until_judged(run: Run, policies: int, failures: int = 0) -> None:
    """Train until so many policies have been judged, with no step meanwhile.

    All goes well with the first; then come the failures.
    """
    tickets = Path(run.experiment.plain["environment"]["kwargs"]["folder"])
    take, seen = run.evaluations.take, []

    def wait(patient: bool = False) -> Any:
        if run.clock.interrupted:
            return []
        until = monotonic() + PATIENCE
        while not (judged := list(take())):
            assert monotonic() < until, "waited in vain for a policy to be judged"
            sleep(0.01)
        for number in range(0 if seen else failures):
            (tickets / str(number)).touch()
        seen.extend(judged)
        if len(seen) >= policies:
            run.clock.stop = "interrupted"
        return judged

    run.evaluations.take = wait  # type: ignore[method-assign]
    run.train()
    assert [candidate.env_steps for candidate in seen] == [100 * n for n in range(1, policies + 1)]
    assert all(len(candidate.episodes or []) == 20 for candidate in seen)


@pytest.mark.parametrize(("how", "failures"), [("raise", 2), ("kill", 2), ("hang", 1)])
def test_a_failed_judge_is_reported_and_replaced(how: str, failures: int, tmp_path: Path) -> None:
    run, console = begin(tmp_path, how)
    train_until_judged(run, 3, failures)
    told = console.export_text()
    restarted = "The judge of policies failed and is restarted with its episodes"
    assert told.count(restarted) >= failures
    if how != "hang":  # a slow one may be taken for hung
        assert told.count(restarted) == failures
    assert WORDS[how] in told
    assert not list((tmp_path / "tickets").iterdir())


def test_too_many_failures_end_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    run, _ = begin(tmp_path, "raise", restarts=1)
    with pytest.raises(WorkerError, match=r"judge of policies(.|\n)*lost its licence") as caught:
        train_until_judged(run, 3, failures=9)
    assert "run.max_restarts" in str(caught.value)
    assert checkpoints(run.folder)


@pytest.mark.parametrize("lacking", ["plugin", "environment"])
def test_where_no_process_can_judge_the_run_does(lacking: str, tmp_path: Path) -> None:
    run, console = begin(tmp_path, "raise", refuses=lacking == "environment")
    if lacking == "plugin":
        run.evaluations.plugins = ["no_such_plugin"]
    train_until_judged(run, 2)
    told = console.export_text()
    assert told.count("Policies are judged in this process, for one of their own failed") == 1
    assert ("no licence" in told) is (lacking == "environment")


class Started:
    """A run that judges beside, started from the command line."""

    def __init__(self, folder: Path) -> None:
        command = ["train", "CartPole_PPO", "--run-dir", str(folder)]
        command += ["--steps", "10_000_000", "--set", "evaluation.every=1_000"]
        command += ["--set", "evaluation.background=true", "--set", "evaluation.episodes=1"]
        self.process = forked.coach(*command, output=folder / "printed.txt")
        self.folder = folder

    def judge(self) -> psutil.Process:
        """The process that judges, as soon as it imports what it needs."""
        begin = monotonic()
        while True:
            for child in psutil.Process(self.process.pid).children():
                with suppress(psutil.Error):
                    spawned = any("spawn_main" in word for word in child.cmdline())
                    if spawned and any("torch" in part.path for part in child.memory_maps()):
                        return child
            assert self.process.poll() is None, self.process.printed()
            assert monotonic() - begin < PATIENCE, "waited in vain for the judge"
            sleep(0.01)

    def judged(self) -> bool:
        return any(path.stat().st_size for path in self.folder.glob("*/*/evaluations.csv"))


@pytest.mark.skipif(sys.platform != "linux", reason="nothing shows what a process has imported")
@pytest.mark.parametrize("early", [True, False])
def test_a_signal_ends_run_and_judge(early: bool, tmp_path: Path) -> None:
    """As terminals send it, to both of them; even while the judge starts."""
    started = Started(tmp_path)
    judge = started.judge()
    sleep(0.3 if early else 0.0)  # from torch's libraries to what it has in Python
    while not early and not started.judged():
        sleep(0.01)
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.process.wait() == 130, started.process.printed()
    assert "--resume" in started.process.printed()
    assert "Traceback" not in started.process.printed()
    assert all_end([judge])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when it has judged")
def test_no_judge_survives_the_run(tmp_path: Path) -> None:
    started = Started(tmp_path)
    judge = started.judge()
    while not started.judged():
        sleep(0.01)
    started.process.kill()
    started.process.wait()
    assert all_end([judge])


def all_end(processes: list[psutil.Process]) -> bool:
    _, left = psutil.wait_procs(processes, timeout=PATIENCE)
    return not left
