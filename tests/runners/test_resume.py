"""A run that is interrupted continues as if it had not been (invariant I6)."""

from __future__ import annotations

import copy
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
Whole = Callable[[dict[str, Any]], Any]


def test_two_runs_of_one_seed_are_identical(
    tiny: dict[str, Any], whole: Whole, launch: Launch
) -> None:
    run = launch(tiny)
    run.train()
    assert fingerprint.of_run(run) == whole(tiny).fingerprint


def test_another_seed_gives_another_run(tiny: dict[str, Any], whole: Whole, launch: Launch) -> None:
    first = whole(tiny)
    tiny["run"]["seed"] = 2
    second = launch(tiny)
    second.train()
    assert fingerprint.of_run(second) != first.fingerprint


def test_resumed_run_equals_the_uninterrupted_one(
    tiny: dict[str, Any], whole: Whole, launch: Launch
) -> None:
    part = launch(tiny)
    # A checkpoint at a step of no importance, in the middle of episodes and of a log interval.
    part.clock.limit = 273
    part.train()
    rest = launch(tiny, part.folder)
    rest.train()
    assert rest.clock.env_steps == 600
    assert fingerprint.of_run(rest) == whole(tiny).fingerprint


def test_what_happened_after_the_checkpoint_is_dropped(
    tiny: dict[str, Any], whole: Whole, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = launch(tiny)
    after = killed.after_fragment

    def die() -> None:
        after()
        if killed.clock.env_steps >= 390:
            raise SystemExit

    monkeypatch.setattr(killed, "after_fragment", die)
    with pytest.raises(SystemExit):
        killed.train()
    assert 300 <= int(checkpoints(killed.folder)[-1].name.split("-")[1]) < 390
    rest = launch(tiny, killed.folder)
    rest.train()
    assert fingerprint.of_run(rest) == whole(tiny).fingerprint


def test_a_finished_run_can_be_extended(tiny: dict[str, Any], whole: Whole, launch: Launch) -> None:
    tiny["run"]["steps"] = 400
    short = launch(tiny)
    short.train()
    tiny["run"]["steps"] = 600
    longer = launch(tiny, short.folder)
    longer.train()
    assert fingerprint.of_run(longer) == whole(tiny).fingerprint


@pytest.mark.parametrize(("name", "kills"), [("dqn", 3), ("ppo", 2), ("sac", 2)])
def test_killed_at_random_moments(name: str, kills: int, tmp_path: Path, launch: Launch) -> None:
    # It never ends by itself, so that it is killed in time however busy the machine is.
    settings = copy.deepcopy(TINY[name])
    settings["run"]["steps"] = 10**9
    settings["evaluation"]["background"] = False
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    dice = random.Random(name)
    command = ["train", str(tmp_path / "tiny.yaml"), "--quiet"]
    command += ["--run-dir", str(tmp_path / "killed")]
    for _ in range(kills):
        _kill_during(command, tmp_path / "killed", dice)
        command = [part for part in command if part != "--resume"] + ["--resume"]
    settings["run"]["steps"] = steps = _furthest(tmp_path / "killed") * 100 + 150
    assert forked.coach(*command, "--steps", str(steps)).wait() == 0
    (folder,) = (tmp_path / "killed" / "tiny").iterdir()
    unbroken = launch(settings)
    unbroken.train()
    assert fingerprint.of_folder(folder) == fingerprint.of_run(unbroken)


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
