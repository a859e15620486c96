"""Whole runs on an accelerator: evaluation, checkpoints, modes, and the way to the CPU and back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pretended
import pytest
import torch
from coach.core.errors import SettingError
from coach.core.registry import entries
from coach.runners.board import WeightBoard
from coach.runners.evaluation import Exam, Judge
from coach.runners.experiment import build_experiment
from coach.runners.replaying import evaluate_run
from coach.runners.training import Run, resume, start
from pretended import NAME, numbers, pretending
from rich.console import Console
from rig import merged, preset
from test_learning_there import settings
from torch import Tensor, nn

pytestmark = pytest.mark.skipif(bool(pretended.UNAVAILABLE), reason=pretended.UNAVAILABLE)

SHORT = {
    "run": {"device": NAME, "steps": 112, "fragment_length": 4, "log_every": 32},
    "evaluation": {"every": 48, "episodes": 3},
}
#: What a resumed run must find again: priorities, streams, notes, recurrent states, statistics.
REMEMBERING = {
    "priorities and weight noise": merged(
        settings("dqn, prioritized"),
        {"agent": {"exploration": {"type": "parameter_noise", "adapt_every": 3}}},
    ),
    "recurrent states": settings("recurrent r2d2"),
    "statistics": settings("ppo, normalised"),
    "two networks": settings("sac"),
}


def begun(made: dict[str, Any], folder: Path) -> Run:
    return start("there", made, folder, Console(quiet=True), [], quiet=True)


def gone_on(run: Run, console: Console | None = None, **changed: Any) -> Run:
    plain = run.experiment.plain
    changed_settings = {**plain, "run": {**plain["run"], **changed}}
    return resume(run.folder, changed_settings, console or Console(quiet=True), [], quiet=True)


def state_of(run: Run) -> dict[str, Any]:
    """All that a checkpoint would hold but times, on the CPU."""
    return {
        name: numbers(value) if isinstance(value, Tensor) else value
        for name, value in run.state_dict().items()
        if not name.startswith("log/timing")
    }


def assert_equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        same = torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name]
        assert same, name


@pytest.mark.parametrize("case", REMEMBERING)
def test_a_run_that_was_interrupted_there_goes_on_to_the_same_bits(
    case: str, tmp_path: Path
) -> None:
    made = merged(REMEMBERING[case], SHORT)
    made["run"].pop("fragment_length")
    with pretending():
        whole = begun(made, tmp_path / "whole")
        whole.train()
        part = begun(made, tmp_path / "part")
        part.clock.limit = 64
        part.train()
        rest = gone_on(part)
        rest.train()
        assert rest.clock.env_steps == whole.clock.env_steps
        assert_equal(state_of(rest), state_of(whole))
        device = next(rest.experiment.agent.parameters()).device
    assert device.type == NAME
    evaluated = (whole.folder / "evaluations.csv").read_bytes()
    assert evaluated == (rest.folder / "evaluations.csv").read_bytes()
    assert evaluated.count(b"\n") >= 2


@pytest.mark.parametrize("case", REMEMBERING)
def test_a_run_moves_to_the_cpu_and_back(case: str, tmp_path: Path) -> None:
    made = merged(REMEMBERING[case], SHORT)
    made["run"].pop("fragment_length")
    with pretending():
        run = begun(made, tmp_path)
        run.train()
        for device, steps in (("cpu", 144), (NAME, 176)):
            before = {n: numbers(t).clone() for n, t in run.experiment.agent.state_dict().items()}
            said = Console(file=io.StringIO(), width=200)
            run = gone_on(run, said, device=device, steps=steps)
            after = {n: numbers(t) for n, t in run.experiment.agent.state_dict().items()}
            assert_equal(after, before)
            assert "random streams begin anew" in said.file.getvalue()  # type: ignore[attr-defined]
            run.train()
            assert run.clock.env_steps >= steps
            agent = run.experiment.agent
            assert {p.device.type for p in agent.parameters()} == {device}
            assert all(torch.isfinite(numbers(p)).all() for p in agent.parameters())


def test_nothing_is_said_of_streams_that_go_on(tmp_path: Path) -> None:
    with pretending():
        run = begun(merged(preset("dqn"), SHORT), tmp_path)
        run.train()
        said = Console(file=io.StringIO(), width=200)
        gone_on(run, said, steps=200).train()
    assert "streams" not in said.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("agent", [entry.name for entry in entries("agent")])
def test_a_policy_is_judged_there_as_on_the_cpu(agent: str) -> None:
    experiment = build_experiment(preset(agent))
    experiment.source.close()
    exam = Exam(
        experiment.environment.judging(),
        experiment.agent.spec,
        experiment.plain["agent"],
        episodes=3,
        seed=4,
        record=True,
        max_steps=100,
        most_envs=3,
    )
    weights = {name: value.clone() for name, value in experiment.agent.state_dict().items()}
    here = Judge(exam).judge(weights, env_steps=1)
    with pretending():
        there = Judge(exam, NAME).judge(weights, env_steps=1)
    assert [(e.env_id, e.length) for e in there] == [(e.env_id, e.length) for e in here]
    assert [e.value for e in there] == pytest.approx([e.value for e in here], abs=1e-5)


def test_a_run_of_there_is_evaluated_there_and_where_the_device_is_missing(tmp_path: Path) -> None:
    said: list[str] = []
    made = merged(preset("ppo"), SHORT)
    with pretending():
        run = begun(made, tmp_path)
        run.train()
        played, _ = evaluate_run(run.folder, run.experiment.plain, 4, said.append)
    assert not said
    plain = {**run.experiment.plain, "run": {**run.experiment.plain["run"], "device": "cuda:7"}}
    here, _ = evaluate_run(run.folder, plain, 4, said.append)
    assert here == played
    (text,) = said
    assert "run.device" in text
    assert "'cuda:7' cannot be used here" in text
    assert "on the CPU" in text


def test_sync_workers_serve_a_learner_there_as_one_process_does(tmp_path: Path) -> None:
    sync = {"mode": "sync", "workers": 2, "worker_kind": "thread"}
    learners = []
    for name, mode in (("single", {}), ("sync", sync)):
        with pretending():
            run = begun(merged(merged(preset("ppo"), SHORT), {"run": mode}), tmp_path / name)
            run.train()
            state = run.experiment.learner.state_dict()
        learners.append({n: numbers(t) for n, t in state.items() if isinstance(t, Tensor)})
    assert_equal(*learners)


@pytest.mark.parametrize("inference", ["actors", "server"])
@pytest.mark.parametrize("agent", ["dqn", "actor_critic"])
def test_async_actors_serve_a_learner_there(agent: str, inference: str, tmp_path: Path) -> None:
    mode = {"mode": "async", "workers": 2, "worker_kind": "thread", "inference": inference}
    with pretending():
        run = begun(merged(preset(agent), merged(SHORT, {"run": mode})), tmp_path)
        run.train()
        learner = run.experiment.learner
        assert run.clock.env_steps >= 112
        assert learner.version > 0
        assert all(torch.isfinite(numbers(p)).all() for p in learner.agent.parameters())


class Weights(nn.Module):
    """Parameters and a statistic that all hold the same number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.parts = nn.ParameterList(torch.full(size, number) for size in ((3,), (2, 5), ()))
        self.register_buffer("statistic", torch.full((4,), number, dtype=torch.float64))


@pytest.mark.parametrize("reads", ["cpu", NAME])
@pytest.mark.parametrize("writes", ["cpu", NAME])
def test_weights_are_published_and_fetched_in_one_copy_each(writes: str, reads: str) -> None:
    with pretending() as traffic:
        mine, theirs = Weights(3.0).to(writes), Weights(0.0).to(reads)
        writer = WeightBoard(mine)
        reader = WeightBoard(theirs, writer.block.again())
        writer.publish(4)
        reader.fetch()  # the first of all brings a checksum, which is looked at
        mine.parts[1].data.fill_(3.5)
        traffic.clear()
        writer.publish(5)
        assert traffic.downloads.total() == traffic.waits.total() == (writes == NAME)
        traffic.clear()
        assert reader.fetch() == 5
        assert traffic.uploads.total() == (reads == NAME)
        assert not traffic.waits
        for name, value in theirs.state_dict().items():
            assert (numbers(value) == (3.5 if name == "parts.1" else 3)).all(), name


@pytest.mark.parametrize(("mode", "remedy"), [("sync", "average"), ("async", "shared")])
def test_gradients_cannot_be_exchanged_between_processes_there(mode: str, remedy: str) -> None:
    exchange = {"mode": mode, "exchange": "gradients", "workers": 2, "device": NAME}
    change = {"run": exchange, "memory": {"batch_size": None}}
    with pretending(), pytest.raises(SettingError, match=remedy) as error:
        build_experiment(merged(preset("actor_critic"), change))
    assert "--device cpu" in error.value.remedy
