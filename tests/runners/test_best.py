"""The best policy is kept, on disk without waiting for it often, and never half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from coach.core.errors import CheckpointError, ResourceError
from coach.runners import best, checkpoint
from coach.runners.best import BestPolicy
from coach.runners.checkpoint import load_policy, save_policy
from coach.runners.training import Run
from torch import Tensor

Launch = Callable[..., Run]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(best, "monotonic", clock)
    return clock


def offered(policy: BestPolicy, value: float, number: int) -> None:
    policy.offer(value, {"w": torch.full((2,), float(number))}, {"env_steps": number})


def written(folder: Path) -> tuple[int, float]:
    weights, facts = load_policy(folder)
    assert weights["w"].tolist() == [facts["env_steps"]] * 2
    return facts["env_steps"], facts["return"]


def test_the_newest_of_the_best_is_kept(tmp_path: Path) -> None:
    policy = BestPolicy(tmp_path / "best")
    for number, value in enumerate([-3.0, 7.0, 5.0, 7.0, 6.0]):
        offered(policy, value, number)
    policy.flush()
    assert policy.value == 7.0
    assert written(tmp_path / "best") == (3, 7.0)


def test_the_disk_is_not_waited_for_often(tmp_path: Path, clock: Clock) -> None:
    policy, folder = BestPolicy(tmp_path / "best"), tmp_path / "best"
    offered(policy, 1.0, 1)
    assert written(folder) == (1, 1.0)  # the first one at once
    clock.now += best.LEAST_SECONDS - 1
    offered(policy, 2.0, 2)
    policy.tick()
    assert written(folder) == (1, 1.0)
    clock.now += 1
    policy.tick()
    assert written(folder) == (2, 2.0)
    offered(policy, 3.0, 3)
    policy.flush()
    assert written(folder) == (3, 3.0)


def test_nothing_is_written_twice(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, calls = BestPolicy(tmp_path / "best"), []
    monkeypatch.setattr(best, "save_policy", lambda *args: calls.append(args))
    policy.flush()
    assert calls == []
    offered(policy, 1.0, 1)
    policy.flush(), policy.tick()
    clock.now += 10 * best.LEAST_SECONDS
    policy.flush(), policy.tick()
    assert len(calls) == 1


def test_a_checkpoint_never_knows_of_a_policy_that_is_not_written(
    tiny_dqn: dict[str, Any], launch: Launch, clock: Clock
) -> None:
    run = launch(tiny_dqn)
    save, seen = run.checkpointer.save, []

    def watched(env_steps: int, state: dict[str, Any], *rest: Any) -> None:
        if state["best"] is not None:
            seen.append(load_policy(run.folder / "best")[1]["return"] == state["best"])
        save(env_steps, state, *rest)

    run.checkpointer.save = watched  # type: ignore[method-assign]
    run.train()
    assert len(seen) > 1
    assert all(seen)


def test_policy_survives_the_round_trip(tmp_path: Path) -> None:
    vector = torch.randn(10)
    shared = {"a": vector[:4], "b": vector[2:], "flag": torch.tensor(True)}
    save_policy(tmp_path / "best", shared, {"env_steps": 7})
    weights, facts = load_policy(tmp_path / "best")
    assert facts["env_steps"] == 7
    assert all(torch.equal(weights[name], shared[name]) for name in shared)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_policy_stays_until_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one: dict[str, Tensor] = {"a": torch.zeros(3)}
    save_policy(tmp_path, one, {"env_steps": 1})
    write = checkpoint.write_file

    def full(path: Path, data: bytes) -> dict[str, Any]:
        if path.name == "agent.json":
            raise ResourceError("The disk is full", "Free some space.")
        return write(path, data)

    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(ResourceError):
        save_policy(tmp_path, {"a": torch.ones(3)}, {"env_steps": 2})
    weights, facts = load_policy(tmp_path)
    assert (facts["env_steps"], weights["a"].tolist()) == (1, [0.0, 0.0, 0.0])
    monkeypatch.undo()
    save_policy(tmp_path, {"a": torch.full((3,), 3.0)}, {"env_steps": 3})
    weights, facts = load_policy(tmp_path)
    assert (facts["env_steps"], weights["a"].tolist()) == (3, [3.0, 3.0, 3.0])
    assert kept(tmp_path) == sorted([facts["file"]["name"], "agent.json"])


def test_a_damaged_policy_is_noticed(tmp_path: Path) -> None:
    save_policy(tmp_path, {"a": torch.randn(10)}, {})
    (path,) = tmp_path.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checksum"):
        load_policy(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_return_that_is_not_finite_is_never_the_best(tmp_path: Path, bad: float) -> None:
    policy = BestPolicy(tmp_path / "best")
    offered(policy, bad, 1)
    assert policy.value is None
    offered(policy, -7.5, 2)
    offered(policy, bad, 3)
    assert policy.value == -7.5
    policy.flush()
    assert written(tmp_path / "best") == (2, -7.5)


def test_a_bad_return_that_an_older_run_kept_gives_way(tmp_path: Path) -> None:
    policy = BestPolicy(tmp_path / "best")
    policy.value = float("nan")
    offered(policy, -3.0, 2)
    assert policy.value == -3.0
