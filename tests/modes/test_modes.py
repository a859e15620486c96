"""One preset, every mode: the numbers agree (invariant I2), whatever is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coach.core.errors import SettingError
from coach.core.schema import build_part
from mode_runs import Alone, agents, outcome, settings_for, spec_of, trained


def lag_limit(agent: str) -> int | None:
    built = build_part("agent", agent, "agent", spec=spec_of(agent)).value
    limit: int | None = built.max_policy_lag
    return limit


def ready_for_lag(agent: str) -> str | dict[str, Any]:
    """The agent, set so that it may learn from an older policy's experience."""
    return agent if lag_limit(agent) != 0 else {"type": agent, "max_policy_lag": 100}


def with_head(head: dict[str, Any], exploration: str) -> dict[str, Any]:
    return {"type": "dqn", "network": {"heads": {"q": head}}, "exploration": exploration}


#: Networks that draw random numbers, and exploration that goes by episodes.
VARIANTS = [
    with_head({"type": "categorical_q", "noisy": True, "dueling": True}, "greedy"),
    with_head({"type": "implicit_quantile_q", "samples": 8}, "epsilon_greedy"),
    with_head({"type": "ensemble_q", "share": 0.5}, "bootstrapped"),
    with_head({"type": "q"}, "parameter_noise"),
]


@pytest.mark.parametrize("agent", [*agents(), *VARIANTS], ids=str)
def test_sync_equals_single(agent: str | dict[str, Any], alone: Alone, tmp_path: Path) -> None:
    run = {"mode": "sync", "workers": 3, "worker_kind": "thread"}
    assert outcome(tmp_path, settings_for(agent, **run)) == alone(agent)


@pytest.mark.parametrize("agent", ["dqn", "ppo"])  # one that replays and one that does not
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_sync_workers_equals_single(
    agent: str, workers: int, alone: Alone, tmp_path: Path
) -> None:
    run = {"mode": "sync", "workers": workers, "worker_kind": "thread"}
    assert outcome(tmp_path, settings_for(agent, **run)) == alone(agent)


@pytest.mark.parametrize("agent", [*agents(), *VARIANTS], ids=str)
def test_one_actor_in_lockstep_equals_single(
    agent: str | dict[str, Any], alone: Alone, tmp_path: Path
) -> None:
    ready = ready_for_lag(agent) if isinstance(agent, str) else agent
    run = {"mode": "async", "workers": 1, "slots": 1, "worker_kind": "thread"}
    found = outcome(tmp_path, settings_for(ready, **run), source=False)
    assert found == alone(ready, source=False)


@pytest.mark.parametrize(
    "sampler", [{"type": "prioritized", "alpha": 0.5}, "rank", "episodic", "balanced"], ids=str
)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_rainbow_is_the_same_in_every_mode(mode: str, sampler: Any, tmp_path: Path) -> None:
    """All that Rainbow is made of, with what else may take the place of its sampler."""
    run = {"mode": mode, "workers": 3 if mode == "sync" else 1, "slots": 1, "worker_kind": "thread"}
    found = []
    for changed in ({}, run):
        settings = settings_for(VARIANTS[0], **changed)
        settings["memory"] |= {"n_step": 3, "sampler": sampler}
        found.append(outcome(tmp_path, settings, source=False))
    assert found[0] == found[1]


@pytest.mark.parametrize("kept", ["normalize_observations", "normalize_rewards"])
def test_running_statistics_reach_the_actor(kept: str, tmp_path: Path) -> None:
    """They change with every fragment, also with those that bring no update."""
    network = {"embedder": "mlp", "heads": {"policy": "categorical", "value": "value"}, kept: True}
    agent = {"type": "actor_critic", "network": network}
    wanted = outcome(tmp_path, settings_for(agent), source=False)
    run = {"mode": "async", "workers": 1, "slots": 1, "worker_kind": "thread"}
    assert outcome(tmp_path, settings_for(agent, **run), source=False) == wanted


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_processes_equal_single(mode: str, alone: Alone, tmp_path: Path) -> None:
    wanted = alone("dqn", source=False)
    run = {"mode": mode, "workers": 2 if mode == "sync" else 1, "worker_kind": "process"}
    assert outcome(tmp_path, settings_for("dqn", **run, slots=1), source=False) == wanted


@pytest.mark.parametrize("agent", agents())
def test_free_running_actors_train(agent: str, alone: Alone, tmp_path: Path) -> None:
    run = {"mode": "async", "workers": 2, "worker_kind": "thread"}
    done = trained(tmp_path, settings_for(ready_for_lag(agent), **run))
    assert done.clock.env_steps >= 256
    updates, most = done.experiment.learner.version, alone(ready_for_lag(agent))["learner/version"]
    assert most / 2 <= updates <= most  # some fragments may wait for the rest of a rollout


@pytest.mark.parametrize("agent", [name for name in agents() if lag_limit(name) == 0])
def test_agents_that_cannot_correct_for_lag_refuse_actors_that_run_ahead(
    agent: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=r"run\.mode.*mode async"):
        trained(tmp_path, settings_for(agent, mode="async", workers=2))


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"workers": 2}, "mode single"),
        ({"mode": "sync", "workers": 5}, "cannot share 4 environments"),
        ({"mode": "async", "workers": 9}, "cannot share 4 environments"),
    ],
)
def test_workers_that_do_not_fit_are_refused(
    run: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=words):
        trained(tmp_path, settings_for("dqn", **run))


def test_fragments_of_too_old_a_policy_are_dropped(tmp_path: Path) -> None:
    agent = {"type": "ppo", "max_policy_lag": 1}  # a rollout brings several updates
    run = {"mode": "async", "workers": 2, "worker_kind": "thread", "slots": 3}
    done = trained(tmp_path, settings_for(agent, **run))
    source: Any = done.experiment.source
    assert source.discarded > 0
    assert done.clock.env_steps >= 256
