"""Policies are judged in the run's process or beside it, with the same outcome."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import fingerprint
import pytest
import torch
import yaml
from coach.core.source import Episode
from coach.runners import judging
from coach.runners.judging import LEAST_STEPS, MOST_WAITING, Evaluations, JudgeProcess
from coach.runners.training import Run
from coach.runners.worker import WorkerError

Launch = Callable[..., Run]
Whole = Callable[[dict[str, Any]], Any]
PATIENCE = 600.0


def until_ready(evaluations: Evaluations) -> JudgeProcess:
    """The process that judges, once it is there."""
    begin = monotonic()
    while True:
        process = evaluations.ask(late=False)
        assert process is not None
        if process.ready:
            return process
        assert monotonic() - begin < PATIENCE, "waited in vain for the process that judges"
        sleep(0.05)


def beside(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Have every policy of the run judged by the process, however long it takes to start."""
    request = run.evaluations.request

    def request_and_wait(env_steps: int) -> None:
        request(env_steps)
        until_ready(run.evaluations)

    def here(_: Any) -> Any:
        raise AssertionError("a policy was judged in the run's process")

    monkeypatch.setattr(run.evaluations, "request", request_and_wait)
    monkeypatch.setattr(run.evaluations, "judge_here", here)
    return run


class NeverReady:
    """In place of a process that takes long to start."""

    ready = False

    def __init__(self, *_: Any) -> None:
        self.closed = False

    def look(self, *_: Any) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def never_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "JudgeProcess", NeverReady)


def in_background(settings: dict[str, Any], background: Any = True) -> dict[str, Any]:
    return {**settings, "evaluation": {**settings["evaluation"], "background": background}}


def test_a_process_finds_what_the_run_would(
    tiny: dict[str, Any],
    whole: Whole,
    launch: Launch,
    ready_processes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, aside = whole(tiny), beside(launch(in_background(tiny)), monkeypatch)
    aside.train()
    assert fingerprint.of_run(aside) == here.fingerprint
    kept = [(run.folder / "best" / "agent.json").read_bytes() for run in (here, aside)]
    assert kept[0] == kept[1]  # a checksum of the weights included


def test_weights_are_those_of_the_moment_that_was_asked_for(
    tiny_dqn: dict[str, Any], launch: Launch, never_ready: None
) -> None:
    run = launch(in_background(tiny_dqn))
    before = {name: t.clone() for name, t in run.experiment.agent.state_dict().items()}
    run.evaluations.request(0)
    with torch.no_grad():
        for parameter in run.experiment.agent.parameters():
            parameter += 1.0
    (candidate,) = run.evaluations.take(patient=True)
    run.experiment.source.close()
    assert all(candidate.weights[name].equal(tensor) for name, tensor in before.items())
    assert candidate.env_steps == 0
    assert candidate.episodes is not None
    assert len(candidate.episodes) == 2


def test_training_waits_once_too_many_policies_do(
    tiny_dqn: dict[str, Any], launch: Launch, never_ready: None
) -> None:
    run = launch(in_background(tiny_dqn))
    for steps in range(MOST_WAITING):
        run.evaluations.request(steps)
        assert not list(run.evaluations.take())
    run.evaluations.request(MOST_WAITING)
    assert [candidate.env_steps for candidate in run.evaluations.take()] == [0]
    assert len(run.evaluations.waiting) == MOST_WAITING
    judged = list(run.evaluations.take(patient=True))
    run.experiment.source.close()
    assert [candidate.env_steps for candidate in judged] == list(range(1, MOST_WAITING + 1))


def test_policies_that_wait_are_in_the_checkpoint(
    tiny: dict[str, Any],
    whole: Whole,
    launch: Launch,
    never_ready: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed = launch(in_background(tiny))
    save = killed.save

    def die(whole: bool = True) -> None:
        save(whole)
        if killed.clock.env_steps >= 500:
            raise SystemExit  # nothing more is written

    monkeypatch.setattr(killed, "save", die)
    with pytest.raises(SystemExit):
        killed.train()
    assert [candidate.env_steps for candidate in killed.evaluations.waiting] == [200, 400]
    assert not (killed.folder / "evaluations.csv").exists()
    rest = launch(tiny, killed.folder)
    rest.train()
    assert fingerprint.of_run(rest) == whole(tiny).fingerprint


def test_policies_restored_from_a_checkpoint_are_judged_by_the_process_as_they_were(
    tiny: dict[str, Any],
    whole: Whole,
    launch: Launch,
    ready_processes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(judging, "JudgeProcess", NeverReady)
        killed = launch(in_background(tiny))
        save = killed.save

        def die(whole: bool = True) -> None:
            save(whole)
            if killed.clock.env_steps >= 300:
                raise SystemExit

        patch.setattr(killed, "save", die)
        with pytest.raises(SystemExit):
            killed.train()
    rest = beside(launch(in_background(tiny), killed.folder), monkeypatch)
    assert [candidate.env_steps for candidate in rest.evaluations.waiting] == [200]
    until_ready(rest.evaluations)  # its layout comes from the checkpoint, later policies do not
    rest.train()
    assert fingerprint.of_run(rest) == whole(tiny).fingerprint
    kept = [(run.folder / "best" / "agent.json").read_bytes() for run in (rest, whole(tiny))]
    assert kept[0] == kept[1]


class FailsAtTheSecond(NeverReady):
    """Judges the first policy once the second waits as well, and breaks with that."""

    ready = True

    def look(self, waiting: Any, *_: Any) -> None:
        if waiting[0].env_steps == 400:
            raise WorkerError("the judge is gone", "Mend it.")
        if len(waiting) == 2:
            waiting[0].episodes = [Episode(0, 7.0, 7)]


def test_what_was_found_is_written_down_before_anything_fails(
    tiny_dqn: dict[str, Any], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "JudgeProcess", FailsAtTheSecond)
    run = launch(in_background(tiny_dqn))
    with pytest.raises(WorkerError, match="the judge is gone"):
        run.train()
    written = (run.folder / "evaluations.csv").read_text().splitlines()
    assert written[1:] == ["200,7.0,7.0"]
    rest = launch(tiny_dqn, run.folder)
    assert [candidate.env_steps for candidate in rest.evaluations.waiting] == [400]
    rest.train()
    assert (run.folder / "evaluations.csv").read_text().splitlines()[1] == "200,7.0,7.0"


def test_interrupted_runs_do_not_wait(
    tiny_dqn: dict[str, Any],
    whole: Whole,
    launch: Launch,
    never_ready: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = launch(in_background(tiny_dqn))
    request = run.evaluations.request

    def interrupted(env_steps: int) -> None:
        request(env_steps)
        run.clock.stop = "interrupted by SIGINT"

    monkeypatch.setattr(run.evaluations, "request", interrupted)
    assert run.train().evaluation is None
    rest = launch(tiny_dqn, run.folder)
    assert [candidate.env_steps for candidate in rest.evaluations.waiting] == [200]
    assert rest.train().evaluation == whole(tiny_dqn).result.evaluation
    assert fingerprint.of_run(rest) == whole(tiny_dqn).fingerprint


@pytest.mark.parametrize(
    ("changed", "threads", "aside"),
    [
        ({}, 1, True),
        ({"run": {"steps": LEAST_STEPS - 1}}, 1, False),
        ({"evaluation": {"stop_at_target": True}}, 1, False),
        ({}, 2, False),
        ({"evaluation": {"background": True}}, 2, True),
        ({"evaluation": {"background": False}}, 1, False),
        ({"evaluation": {"stop_at_target": True, "background": True}}, 1, True),
    ],
)
def test_where_policies_are_judged(
    changed: dict[str, Any],
    threads: int,
    aside: bool,
    tiny_dqn: dict[str, Any],
    launch: Launch,
    never_ready: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "cpus", lambda: 2)
    tiny_dqn["target"] = {"return": 500.0}
    tiny_dqn["run"] |= {"steps": LEAST_STEPS, **changed.get("run", {})}
    tiny_dqn["evaluation"] |= changed.get("evaluation", {})
    run = launch(tiny_dqn)
    run.evaluations.threads.count = threads
    run.evaluations.request(200)
    judged = list(run.evaluations.take())
    run.experiment.source.close()
    assert bool(judged) is not aside
    assert (run.evaluations.process is not None) is aside


def test_stops_at_its_target_once_it_hears_of_it(
    tiny_dqn: dict[str, Any], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_dqn["target"] = {"return": 1.0}
    tiny_dqn["evaluation"]["stop_at_target"] = True
    tiny_dqn["run"]["steps"] = 1_000_000
    run = beside(launch(in_background(tiny_dqn)), monkeypatch)
    result = run.train()
    assert result.stopped == "target reached"
    first = (run.folder / "evaluations.csv").read_text().splitlines()[1]
    assert first.startswith("200,")


def test_a_script_that_trains_when_it_is_imported_trains_once(
    tiny_dqn: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(in_background(tiny_dqn)))
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from time import sleep\n"
        "from coach.runners.judging import Evaluations\n"
        "from coach.runners.preset import load\n"
        "from coach.runners.training import start\n"
        "from rich.console import Console\n"
        "name, settings = load('tiny.yaml', [])\n"
        "run = start(name, settings, Path('runs'), Console(width=200), [], quiet=True)\n"
        "take = Evaluations.take\n"
        "def slow(*args, **kwargs):\n"  # so that the process fails before the run has ended
        "    sleep(0.1)\n"
        "    return take(*args, **kwargs)\n"
        "Evaluations.take = slow\n"
        "print('best', run.train().best)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best") == 1
    assert "if __name__ == '__main__'" in done.stderr
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 1
    assert "Policies are judged in this process" in done.stdout
