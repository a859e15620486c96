"""Which settings may change on resume, and where that is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coach.core.errors import CheckpointError, SettingError
from coach.runners import folder as run_folder
from coach.runners.changes import Change, changes_between, flat, likely_changes, refuse_fixed
from coach.runners.preset import override
from coach.runners.training import Run

Launch = Callable[..., Run]

RESOLVED: dict[str, Any] = {
    "environment": {"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": None},
    "agent": {
        "type": "dqn",
        "double": True,
        "network": {"embedder": {"type": "mlp", "hidden": [64]}, "heads": {"q": {"type": "q"}}},
        "exploration": {"type": "epsilon_greedy", "epsilon": {"type": "linear", "end": 0.1}},
    },
    "memory": {"type": "replay", "capacity": 100, "batch_size": 8, "sampler": {"type": "uniform"}},
    "optimizer": {"type": "rmsprop", "lr": 0.001, "centered": False, "momentum": 0.0},
    "run": {"steps": 100, "envs": 1, "seed": 1, "mode": "single", "fragment_length": None},
    "evaluation": {"every": 10},
}

FIXED = [
    "environment.id=Acrobot-v1",
    "environment.kwargs.x=2",
    "environment.max_episode_steps=7",
    "agent.type=sac",
    "agent.network.embedder.hidden=[32]",
    "agent.network.embedder.type=cnn",
    "agent.network.heads.q=dueling_q",
    "agent.exploration=boltzmann",
    "memory.capacity=200",
    "memory.sampler=prioritized",
    "memory=rollout",
    "optimizer=adam",
    "optimizer.centered=true",
    "optimizer.momentum=0.9",
    "run.envs=2",
    "run.seed=5",
]
FREE = [
    "agent.double=false",
    "agent.exploration.epsilon.end=0.01",
    "agent.exploration.epsilon.type=constant",
    "memory.batch_size=16",
    "optimizer.lr=1e-4",
    "optimizer.lr={start: 0.1, end: 0.0, steps: 5}",
    "run.steps=200",
    "run.mode=async",
    "run.fragment_length=4",
    "evaluation.every=0",
    "about=hello",
]


def changes(text: str) -> list[Change]:
    given = override(RESOLVED, [text])
    return changes_between(RESOLVED, given, given)


@pytest.mark.parametrize("text", FIXED)
def test_what_cannot_change_is_refused_by_name(text: str) -> None:
    key = text.partition("=")[0]
    for found in (changes(text), likely_changes(RESOLVED, override(RESOLVED, [text]))):
        if not found and key == "environment.kwargs.x":
            continue  # not there before: found once defaults are filled in
        with pytest.raises(SettingError) as raised:
            refuse_fixed(found, RESOLVED, Path("my runs/[x]"))
        assert raised.value.key.startswith(key)
        assert "coach train 'my runs/[x]/preset.yaml' --set" in raised.value.remedy


@pytest.mark.parametrize("text", FREE)
def test_what_can_change_is_listed(text: str) -> None:
    found = changes(text)
    refuse_fixed(found, RESOLVED, Path("run"))
    assert found
    assert all(change.key.startswith(text.partition("=")[0]) for change in found)


def test_the_same_values_in_another_form_are_no_change() -> None:
    given = override(RESOLVED, ["optimizer.lr=1e-3", "memory.capacity=100.0"])
    assert changes_between(RESOLVED, given, given) == []
    short = {**RESOLVED, "memory": "replay", "optimizer": {"type": "rmsprop"}}
    assert likely_changes(RESOLVED, short) == []


def test_defaults_of_a_newer_version_are_no_change() -> None:
    newer = {**RESOLVED, "run": {**RESOLVED["run"], "lately": 3}}
    assert changes_between(RESOLVED, newer, RESOLVED) == []
    assert [str(one) for one in changes_between(RESOLVED, newer, newer)] == ["run.lately null -> 3"]


def test_paths_of_settings() -> None:
    assert flat({"a": {"b": [1], "c": {}}, "d": None}) == {"a.b": [1], "a.c": {}, "d": None}


def test_changes_are_written_with_date_and_step_and_stay(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    tiny_dqn["run"] |= {"steps": 100}
    tiny_dqn["optimizer"] = {"type": "adam", "lr": 0.0017}
    first = launch(tiny_dqn)
    first.train()
    folder = first.folder
    launch(override(tiny_dqn, ["run.steps=200", "optimizer.lr=0.0004"]), folder).train()
    record = run_folder.read(folder)
    assert record.settings["optimizer"]["lr"] == {"type": "constant", "value": 0.0004}
    found = [(one["key"], one["env_steps"], one["before"], one["after"]) for one in record.changes]
    assert sorted(found) == [
        ("optimizer.lr.value", 100, 0.0017, 0.0004),
        ("run.steps", 100, 100, 200),
    ]
    assert record.changes[0]["time"][:2] == "20"
    text = (folder / "preset.yaml").read_text()
    assert "at step 100: optimizer.lr.value 0.0017 -> 0.0004" in text
    assert "value: 0.0004" in text
    again = launch(override(record.settings, ["run.steps=300"]), folder)  # without saying lr
    again.train()
    rates = (folder / "progress.csv").read_text().splitlines()
    column = rates[0].split(",").index("learning_rate/online")
    assert [float(row.split(",")[column]) for row in rates[1:]] == [0.0017] * 2 + [0.0004] * 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run.envs=3", "run.envs"),
        ("agent.network.embedder.hidden=[8]", "the weights have its shape"),
        ("memory.sampler=uniform", "memory.sampler.type"),
        ("environment.id=Acrobot-v1", "environment.id"),
        ("run.seed=9", "run.seed"),
        ("run.steps=50", "fewer than the 100"),
    ],
)
def test_nothing_is_touched_by_what_is_refused(
    text: str, words: str, tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    tiny_dqn["run"]["steps"] = 100
    run = launch(tiny_dqn)
    run.train()
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    with pytest.raises(SettingError, match=words):
        launch(override(tiny_dqn, [text]), run.folder)
    after = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    assert set(after) == set(before)
    assert all(after[path] == before[path] for path in before if path.is_file())


def test_a_checkpoint_that_does_not_fit_is_said_in_one_message(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    tiny_dqn["run"]["steps"] = 100
    run = launch(tiny_dqn)
    run.train()
    facts = json.loads((run.folder / "run.json").read_text())
    record = run_folder.read(run.folder)
    record.settings["agent"]["network"]["embedder"]["hidden"] = [8]  # as a forger would
    record.write(run.folder)
    tiny_dqn["agent"]["network"]["embedder"] = {"type": "mlp", "hidden": [8]}
    with pytest.raises(CheckpointError, match="does not fit the settings"):
        launch(tiny_dqn, run.folder)
    assert facts["preset"] == "tiny"
