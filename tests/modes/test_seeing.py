"""What TensorBoard and the CSV files show of workers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from mode_runs import settings_for, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COMMON = {"workers/restarts", "worker_0/env_steps_per_s", "worker_1/env_steps_per_s"}
WAITING = {"workers/learner_waits", "worker_0/waits", "worker_1/waits"}
SHOWN: dict[str, tuple[dict[str, Any], set[str]]] = {
    "sync": ({"worker_kind": "thread"}, COMMON | WAITING),
    "async": (
        {"worker_kind": "thread"},
        COMMON
        | WAITING
        | {"workers/policy_lag", "workers/policy_lag_max", "workers/queued_fragments"},
    ),
    "sync gradients": ({}, COMMON | {"workers/learner_waits"}),
    "async gradients": ({}, COMMON),
}


@pytest.mark.parametrize("mode", SHOWN)
def test_every_worker_is_shown(mode: str, tmp_path: Path) -> None:
    more, wanted = SHOWN[mode]
    name, _, exchange = mode.partition(" ")
    run = {"mode": name, "exchange": exchange or "experience", "workers": 2, **more}
    done = trained(tmp_path, settings_for("dqn", **run))
    events = EventAccumulator(str(done.folder))
    events.Reload()
    assert wanted <= set(events.Tags()["scalars"])
    with (done.folder / "timing.csv").open() as file:
        assert wanted <= set(next(csv.reader(file)))
    with (done.folder / "progress.csv").open() as file:  # holds nothing that depends on time
        assert not any(tag.startswith("worker") for tag in next(csv.reader(file)))
    advised = "advice/text_summary" in events.Tags()["tensors"]
    assert advised == (exchange != "gradients")


def test_without_workers_there_is_nothing_of_them(tmp_path: Path) -> None:
    done = trained(tmp_path, settings_for("dqn"))
    assert "worker" not in (done.folder / "timing.csv").read_text()
