"""Workers that exchange gradients: averaged they equal one learner, unlocked they share one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from coach.core.errors import CoachError, SettingError
from coach.memories.replay import Replay
from coach.memories.rollout import Rollout
from coach.runners import training
from coach.runners.checkpoint import load_policy
from coach.runners.evaluation import evaluate
from coach.runners.training import Run, start
from coach.telemetry.profile import Profile
from mode_runs import agents, go_on, settings_for, states, trained
from rich.console import Console

GRADIENTS = {"exchange": "gradients", "workers": 2}


def weights(run: Run) -> dict[str, torch.Tensor]:
    state = run.experiment.agent.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("agent", agents())
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_agent_trains(agent: str, mode: str, tmp_path: Path) -> None:
    run = trained(tmp_path, settings_for(agent, mode=mode, **GRADIENTS))
    alone = trained(tmp_path, settings_for(agent))
    assert run.clock.env_steps >= 256
    before, after = weights(alone), weights(run)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    if mode == "sync":  # every update is one of all workers, so there are as many as in single
        assert run.experiment.learner.version == alone.experiment.learner.version


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


def test_free_workers_continue_where_they_were(tmp_path: Path) -> None:
    settings = settings_for("dqn", mode="async", **GRADIENTS)
    first = trained(tmp_path, settings)
    rest = go_on(first, steps=512)
    assert rest.clock.env_steps >= 512
    saved, now = first._state(), rest._state()
    for worker in ("", "partner1/"):
        old, new = (
            s[f"source/{worker}memory/env_steps" if worker else "memory/env_steps"]
            for s in (saved, now)
        )
        assert new > old > 0
    assert rest.experiment.learner.version > first.experiment.learner.version


def test_free_workers_share_steps_and_parameters(tmp_path: Path) -> None:
    run = trained(tmp_path, settings_for("actor_critic", mode="async", **GRADIENTS, steps=1_024))
    source: Any = run.experiment.source
    steps = source.partners.ledger.steps
    assert (steps > 0).all()
    assert steps.sum() == run.clock.env_steps
    # Steps that only worker 0 made would have left the second moment of fewer gradients.
    slots = run.experiment.learner.steppers["network"].slots
    assert int(slots["steps"]) > run.experiment.learner.version


@pytest.mark.parametrize("profiled", [False, True])
def test_what_is_evaluated_is_what_is_kept(
    profiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other workers go on changing the weights while a policy is judged."""
    settings = settings_for("actor_critic", mode="async", **GRADIENTS)
    settings["evaluation"] = {"every": 64, "episodes": 1}
    run = start("tiny", settings, tmp_path, Console(quiet=True), [], quiet=True)
    if profiled:
        run.watch(Profile())
    shared, played = run.experiment.agent, []

    def disturbed(agent: Any, *rest: Any) -> Any:
        for group in run.experiment.learner.groups.values():
            group.vector.data += 1.0  # as any other worker may at this moment
        assert agent.act.__self__ is agent
        played.append({name: t.clone() for name, t in agent.state_dict().items()})
        return evaluate(agent, *rest)

    monkeypatch.setattr(training, "evaluate", disturbed)
    run._evaluate()
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
    whole = {"capacity": 100, "batch_size": 32, "warmup": 40, "updates_per_step": 0.25}
    together = Replay.divided(whole, 4, together=True)
    assert together == {"capacity": 25, "batch_size": 8, "warmup": 10, "updates_per_step": 1.0}
    alone = Replay.divided(whole, 4, together=False)
    assert alone == {"capacity": 25, "batch_size": 32, "warmup": 10, "updates_per_step": 0.25}
    rollout = {"horizon": 8, "batch_size": 32}
    assert Rollout.divided(rollout, 4, together=True) == {"horizon": 8, "batch_size": 8}
    assert Rollout.divided(rollout, 4, together=False) == rollout
    assert Rollout.divided({"batch_size": None}, 4, together=True) == {"batch_size": None}
