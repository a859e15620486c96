"""Settings that fit their types and still cannot be meant: refused, not quietly adjusted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.memories.rollout import Rollout
from gymnasium import spaces

SPECS = {
    "discrete": Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2)),
    "box": Spec(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,))),
}


@pytest.mark.parametrize(
    ("kind", "settings", "action", "word"),
    [
        ("optimizer", {"type": "adam", "lr": -1e-3}, "discrete", "lr"),
        ("optimizer", {"type": "sgd", "lr": {"start": 1.0, "end": -1.0, "steps": 9}}, "discrete", "lr"),
        ("optimizer", {"type": "adam", "betas": [0.9, 1.0]}, "discrete", "betas"),
        ("exploration", {"type": "boltzmann", "temperature": -1}, "discrete", "temperature"),
        ("exploration", {"type": "gaussian", "scale": -1}, "box", "scale"),
        ("head", {"type": "squashed_gaussian", "log_std_min": 2, "log_std_max": -2}, "box", "log_std"),
        ("sampler", {"type": "prioritized", "beta": -0.5}, "discrete", "beta"),
        ("sampler", {"type": "prioritized", "beta": 2.0}, "discrete", "beta"),
    ],
)  # fmt: skip
def test_is_refused(kind: str, settings: dict[str, Any], action: str, word: str) -> None:
    with pytest.raises(SettingError, match=word):
        build_part(kind, settings, kind, spec=SPECS[action], features=3)


def fragment(steps: int) -> Batch:
    zeros = torch.zeros(steps, 1)
    obs = torch.zeros(steps, 1, 3)
    return Batch(obs, zeros.long(), zeros, zeros, obs, zeros.bool(), env_ids=torch.arange(1))


@pytest.mark.parametrize("split", [[20], [5, 5, 5, 5], [12, 8]])
def test_a_rollout_is_as_long_as_its_horizon_however_steps_arrive(split: list[int]) -> None:
    """Fragments that do not fit the horizon are refused, or cut; never one long rollout."""
    memory, sizes = Rollout(SPECS["discrete"], 1, horizon=8, epochs=1), []
    try:
        for steps in split:
            memory.write(fragment(steps))
            sizes += [len(batch) for batch in memory.batches(lambda batch: batch)]
    except SettingError as error:
        assert "fragment_length" in str(error)  # noqa: PT017
    else:
        assert sizes == [8, 8]


def test_a_part_names_the_whole_path_of_its_setting() -> None:
    heads = {"policy": {"type": "squashed_gaussian", "log_std_min": 2, "log_std_max": -2}}
    with pytest.raises(SettingError, match=r"^agent\.actor\.heads\.policy\.log_std_min: "):
        build_part("agent", {"type": "sac", "actor": {"heads": heads}}, "agent", spec=SPECS["box"])
    with pytest.raises(SettingError, match=r"^optimizers\.critic\.lr: "):
        build_part("optimizer", {"type": "adam", "lr": -1}, "optimizers.critic")


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    built = build_part(
        "memory", {"type": "replay", "capacity": "1e3"}, spec=SPECS["discrete"], num_envs=1
    )
    assert built.plain["capacity"] == 1000
    with pytest.raises(SettingError, match="capacity"):
        build_part(
            "memory", {"type": "replay", "capacity": "1e-3"}, spec=SPECS["discrete"], num_envs=1
        )
