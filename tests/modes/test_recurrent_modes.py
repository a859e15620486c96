"""Policies that remember, in every mode: the state is carried, restarted, stored and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mode_runs import go_on, outcome, settings_for, states, trained

AGENTS = ["ppo", "actor_critic", "n_step_q"]
LOCKSTEP = {"mode": "async", "workers": 1, "slots": 1, "worker_kind": "thread"}


def remembering(agent: str, cell: str = "gru") -> dict[str, Any]:
    heads = {"q": "q"} if agent == "n_step_q" else {"policy": "categorical", "value": "value"}
    network = {
        "embedder": {"type": "mlp", "hidden": [8]},
        "middleware": {"type": cell, "hidden": 6},
        "heads": heads,
    }
    lag = {} if agent == "actor_critic" else {"max_policy_lag": 100}
    return {"type": agent, "network": network, **lag}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_modes_agree(agent: str, cell: str, tmp_path: Path) -> None:
    settings = remembering(agent, cell)
    wanted = outcome(tmp_path, settings_for(settings), source=False)
    sync = {"mode": "sync", "workers": 2, "worker_kind": "thread"}
    for run in (sync, LOCKSTEP):
        assert outcome(tmp_path, settings_for(settings, **run), source=False) == wanted


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("exchange", ["experience", "gradients"])
def test_they_train_freely(agent: str, exchange: str, tmp_path: Path) -> None:
    run = {"mode": "async", "workers": 2, "exchange": exchange}
    done = trained(tmp_path, settings_for(remembering(agent), **run))
    assert done.clock.env_steps >= 256
    assert done.experiment.learner.version > 0


@pytest.mark.parametrize("agent", AGENTS)
def test_they_continue_bit_for_bit(agent: str, tmp_path: Path) -> None:
    settings = settings_for(remembering(agent))
    whole = trained(tmp_path, settings)
    settings["run"]["steps"] = 144
    rest = go_on(trained(tmp_path, settings), steps=256)
    assert states(rest) == states(whole)
