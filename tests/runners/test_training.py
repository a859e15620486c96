"""What a run does beside learning: evaluation, files, TensorBoard, stopping."""

from __future__ import annotations

import copy
import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fingerprint
import pytest
import yaml
from coach.core.errors import CoachError, SettingError
from coach.runners import folder as run_folder
from coach.runners.replaying import evaluate_run
from coach.runners.training import Run
from coach.runners.trials import InterruptedTrialError
from coach.runners.verify import interquartile_mean, verify
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Launch = Callable[..., Run]
Whole = Callable[[dict[str, Any]], Any]


def test_training_does_not_notice_evaluation(
    tiny: dict[str, Any], whole: Whole, launch: Launch
) -> None:
    first = {**whole(tiny).fingerprint}
    tiny["evaluation"] = {"every": 0}
    alone = launch(tiny)
    alone.train()
    second = fingerprint.of_run(alone)
    for name in ("evaluations.csv", "log/evaluations", "best", "last"):
        assert first.pop(name) != second.pop(name)
    assert first == second


def test_resolved_preset_gives_the_same_run(
    tiny: dict[str, Any], whole: Whole, launch: Launch
) -> None:
    first = whole(tiny)
    resolved = yaml.safe_load((first.folder / "preset.yaml").read_text())
    second = launch(resolved)
    second.train()
    assert fingerprint.of_run(second) == first.fingerprint
    assert (second.folder / "preset.yaml").read_bytes() == (
        first.folder / "preset.yaml"
    ).read_bytes()


def test_run_folder_holds_what_it_should(tiny_dqn: dict[str, Any], whole: Whole) -> None:
    run, result = whole(tiny_dqn), whole(tiny_dqn).result
    names = {path.name for path in run.folder.iterdir() if "tfevents" not in path.name}
    assert names == {
        "preset.yaml",
        "run.json",
        "progress.csv",
        "evaluations.csv",
        "timing.csv",
        "checkpoints",
        "replay",
        "best",
        "result.json",
    }
    facts = json.loads((run.folder / "run.json").read_text())
    assert {"python", "torch", "gymnasium", "numpy"} <= set(facts["versions"])
    assert json.loads((run.folder / "result.json").read_text())["best"] == result.best


def test_progress_has_a_line_per_interval(tiny_dqn: dict[str, Any], whole: Whole) -> None:
    run = whole(tiny_dqn)
    with (run.folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["env_steps"]) for row in rows] == list(range(50, 601, 50))
    # 50 steps of warm-up, then an update in two steps.
    assert [int(row["updates"]) for row in rows] == [(n - 50) // 2 for n in range(50, 601, 50)]
    assert float(rows[-1]["exploration/epsilon"]) == pytest.approx(0.1)


def test_evaluations_have_a_line_each(tiny_dqn: dict[str, Any], whole: Whole) -> None:
    run, result = whole(tiny_dqn), whole(tiny_dqn).result
    with (run.folder / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["env_steps"]) for row in rows] == [200, 400, 600]
    returns = [float(row["evaluation/return"]) for row in rows]
    assert [float(row["evaluation/length"]) for row in rows] == returns  # as CartPole pays
    assert (result.evaluation, result.best) == (returns[-1], max(returns))


def test_tensorboard_shows_everything(tiny: dict[str, Any], launch: Launch) -> None:
    tiny["run"]["histograms"] = True
    run = launch(tiny)
    run.train()
    events = EventAccumulator(str(run.folder))
    events.Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    expected = {
        "episode/return",
        "episode/length",
        "evaluation/return",
        "evaluation/length",
        "memory/fill",
        "speed/env_steps_per_s",
        "speed/updates_per_s",
        "time/env",
        "time/act",
        "time/learn",
        "system/memory_mib",
    }
    expected |= {
        "dqn": {
            "loss/temporal_difference",
            "q/mean",
            "exploration/epsilon",
            "grad_norm/online",
            "learning_rate/online",
            "memory/age",
            "memory/beta",
        },
        "ppo": {
            "loss/clipped_surrogate",
            "loss/policy",
            "loss/value",
            "policy/entropy",
            "policy/kl",
            "policy/clip_fraction",
            "value/mean",
            "value/explained_variance",
            "grad_norm/network",
            "learning_rate/network",
        },
        "sac": {
            "loss/soft_bellman",
            "loss/improve_policy",
            "loss/actor",
            "q/mean",
            "policy/entropy",
            "policy/temperature",
            "grad_norm/critic",
            "grad_norm/actor",
            "grad_norm/temperature",
            "learning_rate/actor",
        },
    }[tiny["agent"]["type"]]
    assert expected <= scalars
    assert "actions" in tags["histograms"]
    assert any(tag.startswith("weights/") for tag in tags["histograms"])
    assert "preset/text_summary" in tags["tensors"]
    # Every scalar of training has environment steps on its x axis.
    assert events.Scalars("speed/env_steps_per_s")[-1].step == 600
    assert events.Scalars("hparam/best_return")


def test_run_ends_at_the_target_when_asked(tiny_dqn: dict[str, Any], launch: Launch) -> None:
    tiny_dqn["target"] = {"return": 1.0}
    tiny_dqn["evaluation"]["stop_at_target"] = True
    result = launch(tiny_dqn).train()
    assert result.stopped == "target reached"
    assert result.env_steps == 200


def test_policies_are_judged_by_what_evaluation_pays(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    tiny_dqn["environment"] |= {
        "kwargs": {"sutton_barto_reward": True},  # 0, and -1 when the pole falls
        "evaluation_kwargs": {"sutton_barto_reward": False},  # 1 for every step
    }
    run = launch(tiny_dqn)
    result = run.train()
    assert result.best is not None
    assert result.best > 1
    rows = list(csv.DictReader((run.folder / "progress.csv").open(encoding="utf-8")))
    assert {float(row["episode/return"]) for row in rows if row["episode/return"]} == {-1.0}
    played, _ = evaluate_run(run.folder, run_folder.read(run.folder).settings, 2, print)
    assert all(episode.value > 1 for episode in played)


def test_what_is_judged_must_look_like_what_is_trained_in(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    tiny_dqn["environment"] = {"id": "exploration_chain", "evaluation_kwargs": {"length": 5}}
    with pytest.raises(SettingError, match=r"environment\.evaluation_kwargs.*Box.*\(5,\)"):
        launch(tiny_dqn)


def test_wrong_arguments_for_judging_are_named_as_such(
    tiny_dqn: dict[str, Any], launch: Launch
) -> None:
    tiny_dqn["environment"] = {"id": "exploration_chain", "evaluation_kwargs": {"lenght": 5}}
    with pytest.raises(
        SettingError, match=r"environment\.evaluation_kwargs\.lenght(.|\n)*'length'"
    ):
        launch(tiny_dqn)


def test_best_policy_can_be_played(tiny: dict[str, Any], whole: Whole) -> None:
    run = whole(tiny).run
    settings = run_folder.read(run.folder).settings
    played, facts = evaluate_run(run.folder, settings, 3, print)
    assert len(played) == 3
    assert facts["return"] == run.best.value
    again, _ = evaluate_run(run.folder, settings, 3, print)
    assert [e.value for e in again] == [e.value for e in played]
    last, facts = evaluate_run(run.folder, settings, 3, print, last=True)
    assert len(last) == 3
    assert facts["env_steps"] == 600


def test_verify_holds_the_mean_against_the_target(tiny_dqn: dict[str, Any], tmp_path: Path) -> None:
    tiny_dqn["target"] = {"return": 500.0, "within_steps": 200, "episodes": 3}
    verdict = verify("tiny", copy.deepcopy(tiny_dqn), tmp_path, seeds=2)
    assert not verdict.passed
    assert [trial.seed for trial in verdict.trials] == [1, 2]
    assert all(trial.env_steps == 200 and len(trial.kept) == 3 for trial in verdict.trials)
    tiny_dqn["target"]["return"] = 1.0
    assert verify("tiny", tiny_dqn, tmp_path, seeds=1).passed


def test_verify_goes_on_with_what_is_there(
    tiny_dqn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_dqn["target"] = {"return": 1.0, "within_steps": 300, "episodes": 3}
    straight = verify("tiny", copy.deepcopy(tiny_dqn), tmp_path / "straight", seeds=2)
    after_fragment, root = Run.after_fragment, tmp_path / "broken"

    def killed(run: Run) -> None:
        after_fragment(run)
        if run.experiment.run.seed == 2 and run.clock.env_steps >= 200:
            raise KeyboardInterrupt  # as where an environment has set Python's own handler

    monkeypatch.setattr(Run, "after_fragment", killed)
    with pytest.raises(InterruptedTrialError, match="Seed 2 was interrupted by SIGINT"):
        verify("tiny", copy.deepcopy(tiny_dqn), root, seeds=2)
    monkeypatch.undo()
    before = {path.name for path in (root / "tiny").iterdir()}
    tiny_dqn["target"]["return"] = 2.0  # judged by something else, but trained alike
    resumed = verify("tiny", copy.deepcopy(tiny_dqn), root, seeds=2, resuming=True)
    assert {path.name for path in (root / "tiny").iterdir()} == before
    assert [t.kept for t in resumed.trials] == [t.kept for t in straight.trials]
    assert [t.last for t in resumed.trials] == [t.last for t in straight.trials]
    finished = json.loads((resumed.trials[0].folder / "result.json").read_text())
    assert resumed.trials[0].seconds == finished["seconds"]
    tiny_dqn["agent"]["target_every"] += 1
    other = verify("tiny", tiny_dqn, root, seeds=1, resuming=True)
    assert other.trials[0].folder.name not in before


def test_verify_does_not_judge_what_was_interrupted(
    tiny_dqn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_fragment = Run.after_fragment

    def interrupted(run: Run) -> None:
        after_fragment(run)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "after_fragment", interrupted)
    tiny_dqn["target"] = {"return": 1.0}
    with pytest.raises(CoachError, match=r"Seed 1 was interrupted by SIGINT after .*\n.*--resume"):
        verify("tiny", tiny_dqn, tmp_path, seeds=2)


def test_interquartile_mean_drops_both_quarters() -> None:
    assert interquartile_mean([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0]) == 3.5


def test_dict_observations_survive_a_resume(launch: Launch) -> None:
    settings: dict[str, Any] = {
        "environment": {"id": "corners"},
        "agent": {"type": "dqn"},
        "memory": {"type": "replay", "capacity": 200, "warmup": 50, "n_step": 2},
        "run": {"steps": 400, "envs": 3, "log_every": 50, "checkpoint_every": 0},
        "evaluation": {"every": 0},
    }
    whole = launch(settings)
    whole.train()
    part = launch(settings)
    part.clock.limit = 201
    part.train()
    rest = launch(settings, part.folder)
    rest.train()
    assert fingerprint.of_run(rest) == fingerprint.of_run(whole)
