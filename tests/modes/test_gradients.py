"""Workers that exchange gradients: averaged they equal one learner, free ones share weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from coach.core.errors import CoachError, SettingError
from coach.core.state import under
from coach.memories.replay import Replay
from coach.memories.rollout import Rollout
from coach.runners import evaluation
from coach.runners.checkpoint import load_policy
from coach.runners.evaluation import evaluate
from coach.runners.training import Run, resume, start
from mode_runs import Alone, agents, go_on, settings_for, spec_of, states, trained
from rich.console import Console

GRADIENTS = {"exchange": "gradients", "workers": 2}


def weights(run: Run) -> dict[str, torch.Tensor]:
    state = run.experiment.agent.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("agent", agents())
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_agent_trains(agent: str, mode: str, alone: Alone, tmp_path: Path) -> None:
    settings = settings_for(agent, mode=mode, **GRADIENTS)
    run = start("tiny", settings, tmp_path, Console(quiet=True), [], quiet=True)
    before = {name: value.clone() for name, value in weights(run).items()}
    run.train()
    assert run.clock.env_steps >= 256
    after = weights(run)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    if mode == "sync":  # every update is one of all workers, so there are as many as in single
        assert run.experiment.learner.version == alone(agent)["learner/version"]


def test_averaged_gradients_are_those_of_one_learner(tmp_path: Path) -> None:
    """Without randomness in acting, two halves of the environments add up to all of them."""
    agent = {"type": "actor_critic", "exploration": "greedy"}
    halves = settings_for(agent, mode="sync", **GRADIENTS)
    halves["memory"]["batch_size"] = None  # every update is made from the whole rollout
    whole = settings_for(agent) | {"memory": halves["memory"]}
    alone, divided = trained(tmp_path, whole), trained(tmp_path, halves)
    assert divided.experiment.learner.version == alone.experiment.learner.version > 5
    for name, value in weights(alone).items():
        torch.testing.assert_close(weights(divided)[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("agent", ["dqn", "ppo"])  # one that replays and one that does not
def test_averaging_workers_continue_bit_for_bit(agent: str, tmp_path: Path) -> None:
    settings = settings_for(agent, mode="sync", **GRADIENTS)
    whole = trained(tmp_path, settings)
    settings["run"]["steps"] = 144  # in the middle of a rollout
    rest = go_on(trained(tmp_path, settings), steps=256)
    assert states(rest) == states(whole)


def train_until_all_have_stepped(run: Run) -> Run:
    """Train until every worker has taken some steps; who starts last does not matter."""
    source: Any = run.experiment.source
    after = run.after_fragment

    def look() -> None:
        after()
        if (source.partners.ledger.steps > 64).all():
            run.clock.stop = "enough"

    run.after_fragment = look  # type: ignore[method-assign]
    run.train()
    return run


def free(tmp_path: Path, agent: str) -> Run:
    settings = settings_for(agent, mode="async", **GRADIENTS, steps=10**6)
    run = start("tiny", settings, tmp_path, Console(quiet=True), [], quiet=True)
    return train_until_all_have_stepped(run)


def test_free_workers_continue_where_they_were(tmp_path: Path) -> None:
    first = free(tmp_path, "dqn")
    again = resume(first.folder, first.experiment.plain, Console(quiet=True), [], quiet=True)
    assert again.clock.env_steps == first.clock.env_steps
    rest = train_until_all_have_stepped(again)
    saved, now = first.state_dict(), rest.state_dict()
    for counter in ("memory/env_steps", "source/partner1/memory/env_steps"):
        assert now[counter] > saved[counter] + 64
    assert rest.experiment.learner.version > first.experiment.learner.version


def test_free_workers_share_steps_and_weights(tmp_path: Path) -> None:
    run = free(tmp_path, "actor_critic")
    source: Any = run.experiment.source
    # The partner may end a fragment of 4 steps of 2 environments after the run has looked last.
    assert 0 <= source.partners.ledger.steps.sum() - run.clock.env_steps <= 8
    assert source.standing().updates == source.partners.ledger.updates.sum() > 0
    # The partner exchanged weights when it was saved, and after it worker 0, which until then had
    # made one update at most that it had not handed over: one step of Adam, at 1e-3.
    partner = under("learner/agent.", source.partners.saved["partner1/"])
    for name, value in weights(run).items():
        torch.testing.assert_close(partner[name], value, rtol=0, atol=4e-3)


def test_a_partner_goes_on_with_its_own_optimiser(tmp_path: Path) -> None:
    first = free(tmp_path, "dqn")
    again = resume(first.folder, first.experiment.plain, Console(quiet=True), [], quiet=True)
    again.clock.stop = "at once"
    again.train()
    rest = train_until_all_have_stepped(
        resume(again.folder, again.experiment.plain, Console(quiet=True), [], quiet=True)
    )
    steps = "source/partner1/learner/optimizer.online.steps"
    before, between, after = (run.state_dict()[steps] for run in (first, again, rest))
    assert 0 < before == between < after


def test_what_is_evaluated_is_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights may change while a policy is judged; it is kept as it was when that was asked for."""
    settings = settings_for("actor_critic", mode="async", **GRADIENTS)
    settings["evaluation"] = {"every": 64, "episodes": 1}
    run = start("tiny", settings, tmp_path, Console(quiet=True), [], quiet=True)
    shared, played = run.experiment.agent, []

    def disturbed(agent: Any, *rest: Any) -> Any:
        for group in run.experiment.learner.groups.values():
            group.vector.data += 1.0
        played.append({name: t.clone() for name, t in agent.state_dict().items()})
        return evaluate(agent, *rest)

    monkeypatch.setattr(evaluation, "evaluate", disturbed)
    run.evaluations.request(64)
    run.note_evaluations()
    run.experiment.source.close()
    kept, _ = load_policy(run.folder / "best")
    name = next(name for name, _ in shared.named_parameters())
    assert played[0][name].equal(kept[name])
    assert not kept[name].equal(shared.state_dict()[name])


def test_another_number_of_workers_cannot_go_on(tmp_path: Path) -> None:
    run = trained(tmp_path, settings_for("dqn", mode="async", **GRADIENTS))
    with pytest.raises(CoachError, match="--workers 2"):
        go_on(run, workers=4)
    with pytest.raises(CoachError, match="--exchange gradients --workers 2"):
        go_on(run, exchange="experience")


@pytest.mark.parametrize(
    ("agent", "run", "words"),
    [
        ("dqn", {"mode": "sync", "workers": 3}, "equal shares"),
        ("dqn", {"mode": "async", "workers": 9}, "cannot share 4 environments"),
        ("dqn", {"mode": "async", "worker_kind": "thread"}, "worker_kind"),
        (
            {"type": "dqn", "network": {"heads": {"q": "q"}, "normalize_observations": True}},
            {"mode": "async"},
            "running statistics",
        ),
    ],
)
def test_combinations_that_cannot_be_right_are_refused(
    agent: Any, run: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=words):
        trained(tmp_path, settings_for(agent, **{**GRADIENTS, **run}))


def test_minibatches_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    settings = settings_for("dqn", mode="sync", **GRADIENTS)
    settings["memory"]["batch_size"] = 15
    with pytest.raises(SettingError, match=r"memory\.batch_size"):
        trained(tmp_path, settings)


def test_divided_memories_add_up_to_the_whole() -> None:
    spec = spec_of("dqn")
    replay, rollout = Replay(spec, 4), Rollout(spec, 4, horizon=8)
    whole = {"capacity": 100, "batch_size": 32, "warmup": 40, "updates_per_step": 0.25}
    together = replay.divided(whole, 4, together=True)
    assert together == {"capacity": 25, "batch_size": 8, "warmup": 10, "updates_per_step": 1.0}
    alone = replay.divided(whole, 4, together=False)
    assert alone == {"capacity": 25, "batch_size": 32, "warmup": 10, "updates_per_step": 0.25}
    assert rollout.divided({"batch_size": 32}, 4, together=True) == {"batch_size": 8}
    assert rollout.divided({"batch_size": 32}, 4, together=False) == {"batch_size": 32}
    assert rollout.divided({"batch_size": None}, 4, together=True) == {"batch_size": None}


def test_whole_sequences_must_divide_too() -> None:
    rollout = Rollout(spec_of("ppo"), 8, sequences=True, horizon=128)
    assert rollout.divided({"batch_size": 256}, 2, together=True) == {"batch_size": 128}
    with pytest.raises(SettingError, match="2 whole sequences"):
        rollout.divided({"batch_size": 256}, 4, together=True)
