"""A run that is interrupted continues as if it had not been (invariant I6)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fingerprint
import forked
import pytest
import yaml
from coach.runners.checkpoint import checkpoints
from coach.runners.training import Run
from tiny_settings import TINY

Launch = Callable[..., Run]


def test_two_runs_of_one_seed_are_identical(tiny: dict[str, Any], launch: Launch) -> None:
    first, second = launch(tiny), launch(tiny)
    first.train(), second.train()
    assert fingerprint.of_run(first) == fingerprint.of_run(second)


def test_another_seed_gives_another_run(tiny: dict[str, Any], launch: Launch) -> None:
    first = launch(tiny)
    tiny["run"]["seed"] = 2
    second = launch(tiny)
    first.train(), second.train()
    assert fingerprint.of_run(first) != fingerprint.of_run(second)


def test_resumed_run_equals_the_uninterrupted_one(tiny: dict[str, Any], launch: Launch) -> None:
    whole = launch(tiny)
    whole.train()
    part = launch(tiny)
    # A checkpoint at a step of no importance, in the middle of episodes and of a log interval.
    part.clock.limit = 273
    part.train()
    rest = launch(tiny, part.folder)
    rest.train()
    assert rest.clock.env_steps == whole.clock.env_steps
    assert fingerprint.of_run(rest) == fingerprint.of_run(whole)


def test_what_happened_after_the_checkpoint_is_dropped(
    tiny: dict[str, Any], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = launch(tiny)
    whole.train()
    killed = launch(tiny)
    after = killed._after_fragment

    def die() -> None:
        after()
        if killed.clock.env_steps >= 390:
            raise SystemExit

    monkeypatch.setattr(killed, "_after_fragment", die)
    with pytest.raises(SystemExit):
        killed.train()
    assert 300 <= int(checkpoints(killed.folder)[-1].name.split("-")[1]) < 390
    rest = launch(tiny, killed.folder)
    rest.train()
    assert fingerprint.of_run(rest) == fingerprint.of_run(whole)


def test_a_finished_run_can_be_extended(tiny: dict[str, Any], launch: Launch) -> None:
    whole = launch(tiny)
    whole.train()
    tiny["run"]["steps"] = 400
    short = launch(tiny)
    short.train()
    tiny["run"]["steps"] = 600
    longer = launch(tiny, short.folder)
    longer.train()
    assert fingerprint.of_run(longer) == fingerprint.of_run(whole)


@pytest.mark.parametrize(("name", "kills"), [("dqn", 4), ("ppo", 3), ("sac", 3)])
def test_killed_at_random_moments(name: str, kills: int, tmp_path: Path, launch: Launch) -> None:
    settings = {**TINY[name], "run": {**TINY[name]["run"], "steps": 3_000}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    whole = launch(settings)
    whole.train()
    dice = random.Random(name)
    command = ["train", str(tmp_path / "tiny.yaml"), "--quiet"]
    command += ["--run-dir", str(tmp_path / "killed")]
    for _ in range(kills):
        _kill_during(command, tmp_path / "killed", dice)
        command = [part for part in command if part != "--resume"] + ["--resume"]
    assert forked.coach(*command).wait() == 0
    (folder,) = (tmp_path / "killed" / "tiny").iterdir()
    assert fingerprint.of_folder(folder) == fingerprint.of_folder(whole.folder)


def _kill_during(command: list[str], root: Path, dice: random.Random) -> None:
    """Start the command and kill it once it has got some way; what way, chance decides."""
    seen = _furthest(root)
    process = forked.coach(*command)
    wanted = seen + dice.randint(1, 4)  # checkpoints to wait for, then some fraction of a moment
    while _furthest(root) < wanted and process.poll() is None:
        time.sleep(0.001)
    time.sleep(dice.random() * 0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


def _furthest(root: Path) -> int:
    """Checkpoints written so far by the run below ``root``."""
    names = [path.name for path in root.glob("tiny/*/checkpoints/step-*")]
    return max((int(name.split("-")[1]) for name in names), default=0) // 100
