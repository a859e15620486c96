"""Where a setting stands that is written in another place or under another framework's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coach.core.errors import SettingError, near_name, nearest
from coach.core.hints import ALIASES, PLACES, SECTIONS, elsewhere, places, section_class
from coach.core.registry import entries
from coach.core.schema import Part, build
from coach.runners.preset import load


def accepts(path: str) -> bool:
    """Whether some part or section takes a setting at a path; asked of the builder itself."""
    place, _, name = path.rpartition(".")
    place = "optimizer" if place.startswith("optimizers.") else place
    place = place.replace("agent.critic", "agent.network").replace("agent.actor", "agent.network")
    if place in SECTIONS:
        return not unknown(lambda: build(section_class(place), {name: object()}))
    (kind,) = [kind for kind, where in PLACES.items() if where == place]
    names = [entry.name for entry in entries(kind)]
    if name == "type":
        return bool(names)
    return any(
        not unknown(lambda p=part: Part.of(kind, {"type": p, name: object()})) for part in names
    )


def unknown(action: Any) -> bool:
    with pytest.raises(SettingError) as caught:
        action()
    return "unknown key" in str(caught.value)


def test_every_alias_points_at_a_setting_that_exists() -> None:
    paths = {path for targets in ALIASES.values() for path in targets}
    assert [path for path in sorted(paths) if not accepts(path)] == []
    assert not accepts("memory.gamma")  # the check itself can fail
    assert not accepts("run.total_timesteps")


@pytest.mark.parametrize("name", sorted(name for name in ALIASES if places(name)))
def test_a_foreign_name_that_is_ours_too_leads_to_both(name: str) -> None:
    said = elsewhere(name)
    for path in [*ALIASES[name], *places(name)]:
        assert path in said


@pytest.mark.parametrize("section", ["agent", "memory", "run", "optimizer", "evaluation", ""])
@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("gamma", ["memory.discount"]),
        ("learning_rate", ["optimizer.lr"]),
        ("n_steps", ["memory.horizon", "memory.n_step"]),
        ("buffer_size", ["memory.capacity"]),
        ("ent_coef", ["agent.entropy_coefficient", "agent.temperature"]),
        ("target_update_interval", ["agent.target_every"]),
        ("num_env_runners", ["run.workers"]),
        ("train_batch_size", ["memory.batch_size", "memory.horizon"]),
        ("Total-Timesteps", ["run.steps"]),
        ("exploration_fraction", ["agent.exploration.epsilon"]),
    ],
)
def test_other_frameworks_names_point_to_ours(section: str, name: str, paths: list[str]) -> None:
    said = elsewhere(name, section)
    for path in paths:
        assert path in said


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("agent.lr", "optimizer.lr"),
        ("agent.discount", "memory.discount"),
        ("memory.seed", "run.seed"),
        ("run.updates_per_step", "memory.updates_per_step"),
        ("run.max_episode_steps", "environment.max_episode_steps"),
        ("memory.share_trunk", "agent.network.share_trunk"),
        ("evaluation.checkpoint_every", "run.checkpoint_every"),
    ],
)
def test_a_setting_in_another_section_is_found(written: str, path: str, tmp_path: Path) -> None:
    from coach.runners.experiment import build_experiment

    _, settings = load("CartPole_PPO", [f"{written}=1"])
    with pytest.raises(SettingError, match=f"unknown key .*\n.*{path}"):
        build_experiment(settings)


def test_a_near_name_of_the_same_part_comes_before_other_places() -> None:
    with pytest.raises(SettingError, match=r"Did you mean 'sampler'\?$"):
        Part.of("memory", {"type": "replay", "sampler_": "rank"}, "memory")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lunarlander_dqn", "LunarLander_DQN"),
        ("LUNARLANDER-RAINBOW", "LunarLander_Rainbow"),
        ("acrobot_qrdq", "Acrobot_QRDQN"),
        ("Pendulum_sac", "Pendulum_SAC"),
        ("Pendulum_SAC", "Pendulum_SAC"),
    ],
)
def test_case_does_not_matter_for_near_names(written: str, meant: str) -> None:
    from coach.runners.preset import preset_files

    assert near_name(written, preset_files()) == meant
    assert nearest(written, preset_files()) == f"Did you mean '{meant}'?"


def test_names_that_differ_in_case_alone_are_both_found() -> None:
    assert near_name("b", ["B", "b"]) == "b"
    assert near_name("B", ["B", "b"]) == "B"
    assert near_name("qqq", ["B", "b"]) is None
