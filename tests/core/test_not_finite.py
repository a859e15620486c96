"""Numbers of the agent itself that are NaN or infinite stop it before they spread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from coach.core.agent import Agent, Loss, objective
from coach.core.batch import Batch
from coach.core.errors import NotFiniteError
from coach.core.flat import FlatParameters
from coach.core.learner import MEASURE_EVERY, Learner
from coach.core.spec import Spec
from coach.optimizers.adam import Adam
from coach.optimizers.sgd import SGD
from coach.runners.checkpoint import find_latest
from coach.runners.training import start
from gymnasium import spaces
from rich.console import Console
from torch import nn

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
BATCH = Batch(
    torch.ones(4, 3), torch.zeros(4), torch.ones(4), torch.zeros(4), torch.ones(4, 3),
    torch.zeros(4, dtype=torch.bool),
)  # fmt: skip


class Pair(Agent):
    """A calm objective, and one that can be set off.

    Args:
        how: nan, inf: what the loss becomes; root: a finite loss whose gradient is not.
    """

    def __init__(self, how: str = "") -> None:
        super().__init__(SPEC)
        torch.manual_seed(1)
        self.calm, self.wild = nn.Linear(3, 1), nn.Linear(3, 1)
        self.how = how

    @objective(minimises="calm")
    def settle(self, batch: Batch) -> Loss:
        return Loss((self.calm(batch.obs).squeeze(-1) - batch.reward).square())

    @objective(minimises="wild")
    def explode(self, batch: Batch) -> Loss:
        value = self.wild(batch.obs).squeeze(-1).square()
        if self.how == "root":
            return Loss((value * 0).sqrt())
        if self.how:
            return Loss(value * float(self.how))
        return Loss(value)


def several(learner: Learner, updates: int) -> None:
    for _ in range(updates):
        learner.step(BATCH, 0)


def weights(agent: Agent) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in agent.parameters()]


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("how", ["nan", "inf"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_loss_that_is_not_finite_takes_no_step(how: str, before: int, record: bool) -> None:
    agent = Pair()
    learner = Learner(agent, Adam(lr=0.1), record=record)
    for _ in range(before):
        learner.step(BATCH, 0)
    agent.how, kept = how, weights(agent)
    for recorder in learner.recorders:  # what has been recorded knows nothing of the change
        recorder.enabled = False
    with pytest.raises(NotFiniteError) as caught:
        learner.step(BATCH, 0)
    message = str(caught.value)
    for part in (f"update {before + 1}", "objective 'explode'", how, "optimizer.lr"):
        assert part in message
    assert torch.equal(agent.wild.weight, kept[2])
    learner.require_finite()


def test_recorded_losses_are_looked_at_too() -> None:
    learner = Learner(Pair(), SGD(lr=0.1))
    for _ in range(3):
        learner.step(BATCH, 0)
    spoiled = Batch(BATCH.obs * math.nan, *[getattr(BATCH, n) for n in (
        "action", "reward", "discount", "next_obs", "boundary")])  # fmt: skip
    with pytest.raises(NotFiniteError, match="objective 'settle'"):
        learner.step(spoiled, 0)
    learner.require_finite()


@pytest.mark.parametrize("limit", [None, 1.0])
def test_a_gradient_that_is_not_finite_names_its_module(limit: float | None) -> None:
    agent = Pair("root")
    kept = weights(agent)
    with pytest.raises(NotFiniteError, match=r"update 1, the gradient of 'wild'.*'explode'"):
        Learner(agent, SGD(lr=0.1, max_grad_norm=limit)).step(BATCH, 0)
    assert torch.equal(agent.wild.weight, kept[2])


def test_without_a_limit_a_bad_gradient_is_found_soon() -> None:
    agent = Pair()
    learner = Learner(agent, SGD(lr=0.1), record=False)
    learner.step(BATCH, 0)
    agent.how = "root"
    with pytest.raises(NotFiniteError, match="explode"):
        several(learner, MEASURE_EVERY)


def test_a_large_gradient_is_clipped_although_its_square_overflows() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    group = FlatParameters([parameter])
    group.set_gradients([torch.tensor([3e30, -4e30])])
    square = group.clip(5.0)
    assert square is not None
    assert float(square) == pytest.approx(25e60, rel=1e-6)
    assert group.gradients[0].tolist() == pytest.approx([3.0, -4.0], rel=1e-6)


def test_weights_are_named_by_module_and_path() -> None:
    agent = Pair()
    learner = Learner(agent, SGD(lr=0.1))
    learner.require_finite()
    with torch.no_grad():
        agent.wild.bias.fill_(math.inf)
    with pytest.raises(NotFiniteError, match=r"weights of 'wild' \(wild\.bias\) became inf"):
        learner.require_finite()


@pytest.mark.parametrize("name", ["loss/explode", "grad_norm/wild"])
def test_metrics_are_looked_at_where_they_are_fetched(name: str) -> None:
    """On an accelerator that is the first time that anybody knows them."""
    learner = Learner(Pair(), SGD(lr=0.1))
    fine = {name: 1.0, "explained_variance": math.nan}
    assert learner.checked(fine) is fine
    with pytest.raises(NotFiniteError, match=f"'{name.split('/')[1]}' became nan"):
        learner.checked({name: math.nan})


SETTINGS: dict[str, Any] = {
    "environment": {"id": "CartPole-v1"},
    "agent": {"type": "ppo", "network": {"embedder": {"type": "mlp", "hidden": [8]}, "heads": {"policy": "categorical", "value": "value"}}},
    "memory": {"type": "rollout", "horizon": 16, "epochs": 1, "batch_size": 16},
    "run": {"steps": 10_000, "checkpoint_every": 64},
    "evaluation": {"every": 0},
}  # fmt: skip


@pytest.mark.parametrize("steps", [208, 10_000])  # the last update, or one of many
def test_a_run_keeps_the_checkpoint_before_its_weights_were_lost(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SETTINGS, "run": {**SETTINGS["run"], "steps": steps}}
    run = start("lost", settings, tmp_path, Console(quiet=True), [], quiet=True)
    learner, step = run.experiment.learner, run.experiment.learner.step

    def spoil(batch: Batch, env_steps: int) -> Any:
        update = step(batch, env_steps)
        if env_steps >= 200:
            next(iter(learner.groups.values())).vector.data.fill_(math.nan)
        return update

    monkeypatch.setattr(learner, "step", spoil)
    with pytest.raises(NotFiniteError, match=r"update \d+"):
        run.train()
    found = find_latest(run.folder, lambda _: None)
    assert found.manifest["env_steps"] == 192
    learned = [value for name, value in found.state.items() if name.startswith("learner/agent.")]
    assert all(value.isfinite().all() for value in learned)
