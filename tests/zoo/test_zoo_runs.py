"""Runs in every mode that meet a bad value: they end with a checkpoint, or drop the episode."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import animals
import forked
import numpy as np
import odometer
import pytest
import torch
import yaml
from coach.core.errors import BadValueError, SettingError
from coach.core.spec import Spec
from coach.environments.making import EnvironmentSettings
from coach.environments.vector import VectorEnv
from coach.runners.actor import Actor
from coach.runners.checkpoint import checkpoints, find_latest
from coach.runners.evaluation import evaluate
from coach.runners.lockstep import LockstepEnvs
from coach.runners.training import Run, start
from coach.runners.worker import Tolerance
from rich.console import Console
from small_loop import Still

WORLD = f"{odometer.HOME}:Odometer"
MODES: dict[str, dict[str, Any]] = {
    "single": {},
    "sync_process": {"mode": "sync", "workers": 2, "worker_kind": "process"},
    "sync_thread": {"mode": "sync", "workers": 2, "worker_kind": "thread"},
    "async_process": {"mode": "async", "workers": 2, "worker_kind": "process"},
    "async_server": {"mode": "async", "workers": 2, "worker_kind": "thread", "inference": "server"},
    "averaging": {"mode": "sync", "workers": 2, "exchange": "gradients"},
    "hogwild": {"mode": "async", "workers": 2, "exchange": "gradients"},
}


def preset(mode: str = "single", steps: int = 240, **world: Any) -> dict[str, Any]:
    drop = world.pop("on_bad_value", "stop")
    return {
        "environment": {"id": WORLD, "kwargs": world, "on_bad_value": drop},
        "agent": {"type": "dqn", "network": {"embedder": {"type": "mlp", "hidden": [8]}, "heads": {"q": "q"}}},
        "memory": {"type": "replay", "capacity": 400, "warmup": 16, "batch_size": 8},
        "run": {"steps": steps, "envs": 4, "fragment_length": 4, "log_every": 40, **MODES[mode]},
        "evaluation": {"every": 0},
    }  # fmt: skip


def begin(tmp_path: Path, settings: dict[str, Any]) -> tuple[Run, Console]:
    console = Console(record=True, width=300)
    return start("odometer", settings, tmp_path, console, [], quiet=True), console


def saved_weights(run: Run) -> list[torch.Tensor]:
    state = find_latest(run.folder, lambda _: None).state
    return [v for k, v in state.items() if k.startswith("learner/agent.") and v.is_floating_point()]


@pytest.mark.parametrize("mode", MODES)
def test_a_bad_value_ends_the_run_with_a_checkpoint(mode: str, tmp_path: Path) -> None:
    # Where workers have processes of their own, it comes from one of these.
    spare = mode in ("sync_process", "async_process", "averaging", "hogwild")
    run, _ = begin(tmp_path, preset(mode, 10**6, what="reward", one_in=2, spare=spare))
    with pytest.raises(BadValueError) as caught:
        run.train()
    message = str(caught.value)
    for part in (WORLD, "environment ", "episode ", "step 4", "reward is nan", "--resume"):
        assert part in message
    assert checkpoints(run.folder)
    weights = saved_weights(run)
    assert weights
    assert all(tensor.isfinite().all() for tensor in weights)


@pytest.mark.parametrize("background", [False, True])
def test_a_bad_value_in_an_evaluation_ends_the_run(background: bool, tmp_path: Path) -> None:
    settings = preset(steps=40_000, one_in=0)
    settings["environment"]["evaluation_kwargs"] = {"one_in": 1, "what": "observation"}
    settings["evaluation"] = {"every": 40, "episodes": 2, "background": background}
    run, _ = begin(tmp_path, settings)
    with pytest.raises(
        BadValueError, match=r"In an evaluation, .*\['place'\] is inf at index \[1\]"
    ):
        run.train()
    assert checkpoints(run.folder)
    assert run.best.value is None


def test_the_command_ends_with_a_status_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "odometer.yaml"
    file.write_text(yaml.safe_dump(preset(one_in=1)), encoding="utf-8")
    command = ["train", str(file), "--run-dir", str(tmp_path), "--quiet"]
    process = forked.coach(*command, output=tmp_path / "printed.txt")
    assert process.wait() == BadValueError.exit_status == 5
    assert "Traceback" not in process.printed()
    assert "episode 0, step 4): the reward is nan" in process.printed()


# --- dropping episodes


def here(drop: bool = True, envs: int = 3, **world: Any) -> VectorEnv:
    on = "drop_episode" if drop else "stop"
    return EnvironmentSettings(WORLD, world, on_bad_value=on).vector(envs, seed=5)


def in_workers(kind: Any = "thread", **world: Any) -> VectorEnv:
    settings = EnvironmentSettings(WORLD, world, on_bad_value="drop_episode")
    spec = Spec(odometer.Odometer.observation_space, odometer.Odometer.action_space)
    return LockstepEnvs(settings, spec, 3, 2, kind, 5, Tolerance(0, lambda _: None))


def fragments(envs: VectorEnv, count: int, length: int = 5) -> tuple[list[Any], Actor]:
    actor = Actor(Still(envs.spec), envs, length, seed=0)
    return [actor.collect().clone() for _ in range(count)], actor


@pytest.mark.parametrize("what", ["reward", "observation", "reset"])
def test_nothing_of_a_fragment_with_a_bad_value_is_kept(what: str) -> None:
    envs = here(what=what, one_in=3)
    found, actor = fragments(envs, 12)
    report = actor.report()
    assert report.dropped == len(report.notices) > 0 or what == "reset"
    assert all("An episode is dropped: " in notice.text for notice in report.notices)
    for batch in found:
        place, after = batch.obs["place"], batch.next_obs["place"]
        assert place.isfinite().all()
        assert (batch.reward == 1).all()
        # Every transition is one that the environment made: a step further in the same episode.
        assert torch.equal(after[..., 0], place[..., 0])
        assert torch.equal(after[..., 1], place[..., 1] + 1)
        assert torch.equal(batch.boundary, after[..., 1] == 6)
        sick = place[..., 0].long() % 3 == 0
        assert not (sick & (place[..., 1] == 3)).any() or what == "reset"
        assert not sick.any() or what != "reset"
    cut = [not batch.continues for batch in found]
    assert any(cut) == (what != "reset")
    for before, batch, is_cut in zip(found, found[1:], cut[1:]):
        if not is_cut:  # what was led to is what is acted on next, unless an episode ended
            led, acted = before.next_obs["place"][-1], batch.obs["place"][0]
            assert torch.equal(led[~before.boundary[-1]], acted[~before.boundary[-1]])
    assert actor.ctx.step == 12 * 5 * 3  # what was given up does not count
    envs.close()


@pytest.mark.parametrize("what", ["reward", "reset"])
def test_workers_drop_the_same_episodes(what: str) -> None:
    one, two = here(what=what), in_workers(what=what)
    (mine, _), (theirs, actor) = fragments(one, 10), fragments(two, 10)
    for a, b in zip(mine, theirs):
        assert torch.equal(a.obs["place"], b.obs["place"])
        assert torch.equal(a.boundary, b.boundary)
        assert a.continues == b.continues
    assert one.episode == two.episode
    assert actor.report().notices
    # Both come back to where they were, in the other's place.
    again = here(what=what)
    obs = again.load_state_dict(two.state_dict())
    assert np.array_equal(obs["place"], one.state_dict()["obs.place"].numpy())
    for envs in (one, two, again):
        envs.close()


@pytest.mark.parametrize(
    "mode", ["single", "sync_process", "async_process", "averaging", "hogwild"]
)
def test_a_run_that_drops_episodes_says_how_many(mode: str, tmp_path: Path) -> None:
    settings = preset(mode, 400, one_in=4, on_bad_value="drop_episode")
    run, console = begin(tmp_path, settings)
    run.train()
    said = console.export_text()
    assert "An episode is dropped" in said
    assert "reward is nan" in said
    rows = list(csv.DictReader((run.folder / "progress.csv").open(encoding="utf-8")))
    assert int(rows[-1]["dropped_episodes"]) > 0
    assert all(tensor.isfinite().all() for tensor in saved_weights(run))
    assert run.clock.env_steps >= 400


def test_dropped_episodes_are_not_judged_by() -> None:
    agent = Still(Spec(odometer.Odometer.observation_space, odometer.Odometer.action_space))
    settings = EnvironmentSettings(WORLD, {"one_in": 2}, on_bad_value="drop_episode")
    notices: list[Any] = []
    episodes = evaluate(agent, settings.vector, 7, seed=3, notices=notices)
    assert [(episode.value, episode.length) for episode in episodes] == [(6.0, 6)] * 7
    assert notices


@pytest.mark.parametrize("what", ["reward", "reset"])
def test_dropping_ends_where_every_episode_is_bad(what: str) -> None:
    with pytest.raises(BadValueError, match=r"100 (episodes|fragments) in a row"):
        fragments(here(what=what, one_in=1), 200)


def test_long_fragments_that_always_hold_a_bad_value_end_the_run() -> None:
    with pytest.raises(BadValueError, match=r"100 fragments in a row.*\n.*run\.fragment_length"):
        fragments(here(one_in=2), 1, length=200)


def test_what_every_episode_would_repeat_is_not_dropped() -> None:
    settings = EnvironmentSettings(
        f"{animals.HOME}:Creature", {"name": "short"}, on_bad_value="drop_episode"
    )
    with pytest.raises(BadValueError, match="episode 0") as caught:
        settings.vector(1, seed=1).reset()
    assert "drop_episode" not in str(caught.value)


def test_native_environments_cannot_drop_an_episode() -> None:
    with pytest.raises(SettingError, match=r"environment\.on_bad_value"):
        EnvironmentSettings("CartPole-v1", backend="gymnasium", on_bad_value="drop_episode")
