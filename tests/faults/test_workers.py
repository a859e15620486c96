"""A worker that dies never hangs the run and never vanishes silently (invariant I7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coach.runners.checkpoint import checkpoints
from coach.runners.training import Run, resume, start
from coach.runners.worker import WorkerError
from rich.console import Console

WORLD = f"{Path(__file__).with_name('faulty_world.py')}:FaultyWorld"
WORDS = {
    "raise": "the simulator lost its licence",
    "kill": "killed by SIGKILL",
    "hang": "run.worker_timeout",
}


def faulty(tmp_path: Path, how: str, failures: int, **run: Any) -> dict[str, Any]:
    """Settings of a run that fails ``failures`` times.

    Only hanging workers are given little time: on a busy machine a healthy one may be silent for
    seconds, and is then replaced as well, which the number of restarts allows for.
    """
    tickets = tmp_path / "tickets"
    tickets.mkdir()
    for number in range(failures):
        (tickets / str(number)).touch()
    patience = {"worker_timeout": 3, "max_restarts": 100} if how == "hang" else {}
    return {
        "environment": {"id": WORLD, "kwargs": {"how": how, "folder": str(tickets)}},
        "agent": {"type": "dqn", "network": {"embedder": {"type": "mlp", "hidden": [8]}, "heads": {"q": "q"}}},
        "memory": {"type": "replay", "capacity": 500, "warmup": 20},
        "run": {"steps": 300, "envs": 4, "fragment_length": 5, "workers": 2, **patience, **run},
        "evaluation": {"every": 0},
    }  # fmt: skip


def begin(tmp_path: Path, settings: dict[str, Any]) -> tuple[Run, Console]:
    console = Console(record=True, width=200)
    return start("faulty", settings, tmp_path / "runs", console, [], quiet=True), console


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("how", "kind"),
    [("raise", "thread"), ("raise", "process"), ("kill", "process"), ("hang", "process")],
)
def test_a_failed_worker_is_reported_and_replaced(
    mode: str, how: str, kind: str, tmp_path: Path
) -> None:
    run, console = begin(tmp_path, faulty(tmp_path, how, 2, mode=mode, worker_kind=kind))
    run.train()
    assert run.clock.env_steps >= 300
    told = console.export_text()
    assert "failed and is restarted" in told
    if how != "hang":  # where nobody waits for a worker, the run may end before its silence counts
        assert told.count("failed and is restarted") == 2
    assert WORDS[how] in told
    assert not list((tmp_path / "tickets").iterdir())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_too_many_failures_end_the_run_with_a_checkpoint(mode: str, tmp_path: Path) -> None:
    settings = faulty(tmp_path, "raise", 9, mode=mode, worker_kind="thread", max_restarts=1)
    run, _ = begin(tmp_path, settings)
    with pytest.raises(WorkerError, match="simulator lost its licence") as caught:
        run.train()
    assert "run.max_restarts" in str(caught.value)
    assert checkpoints(run.folder)


def test_a_crash_is_a_step_that_was_cut_off_where_it_began(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "raise", 1, mode="sync", worker_kind="thread", workers=4)
    run, _ = begin(tmp_path, settings)
    source: Any = run.experiment.source
    first = source.collect().clone()
    second = source.collect().clone()  # holds the tenth step
    source.close()
    lost = (second.reward[-1] == 0).nonzero().flatten().tolist()
    assert len(lost) == 1
    for env in range(4):
        cut_off = env in lost
        assert bool(second.boundary[-1, env]) == cut_off
        assert second.discount[-1, env] == 1.0
        assert second.next_obs[-1, env].equal(second.obs[-1, env]) == cut_off
    assert first.reward.all()


def test_a_worker_that_hangs_is_noticed_while_the_learner_runs_free(tmp_path: Path) -> None:
    """A learner that never runs out of work looks after its actors all the same."""
    settings = faulty(tmp_path, "hang", 1, mode="async", free_learner=True, worker_kind="process")
    settings["run"] |= {"workers": 1, "envs": 2}
    settings["memory"]["warmup"] = 5
    run, console = begin(tmp_path, settings)
    run.train()
    assert WORDS["hang"] in console.export_text()
    assert run.clock.env_steps >= 300


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_thread_that_hangs_cannot_be_replaced(mode: str, tmp_path: Path) -> None:
    """It might wake up and write where its successor writes."""
    settings = faulty(tmp_path, "hang", 1, mode=mode, worker_kind="thread", worker_timeout=1)
    settings["run"]["steps"] = 10**9  # the others go on meanwhile
    run, _ = begin(tmp_path, settings)
    with pytest.raises(WorkerError, match="--worker-kind process"):
        run.train()
    assert checkpoints(run.folder)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_run_that_ran_out_of_restarts_can_be_taken_up_again(mode: str, tmp_path: Path) -> None:
    settings = faulty(tmp_path, "raise", 1, mode=mode, worker_kind="thread", max_restarts=0)
    run, console = begin(tmp_path, settings)
    with pytest.raises(WorkerError):
        run.train()
    again = resume(run.folder, settings, console, [], quiet=True)
    again.train()
    assert again.clock.env_steps >= 300
