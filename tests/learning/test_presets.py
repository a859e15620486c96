"""Every preset reaches its own pass mark, over its own number of seeds (`make learn`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from coach.core.errors import SettingError
from coach.runners.preset import load, preset_files
from coach.runners.verify import Verdict, verify

#: Environment steps up to which `make learn` runs a preset; beyond, `coach verify` is for those who
#: have the hardware.
LONGEST = 1_000_000

PRESETS = {name: yaml.safe_load(path.read_text("utf-8")) for name, path in preset_files().items()}


@pytest.mark.learning
@pytest.mark.parametrize(
    "name", [name for name, preset in PRESETS.items() if preset["run"]["steps"] <= LONGEST]
)
def test_preset_reaches_its_target(name: str, tmp_path: Path) -> None:
    verdict: Verdict = verify(*load(name), tmp_path, seeds=None)
    found = f"kept {verdict.kept}, last {verdict.last} against {verdict.target}"
    assert verdict.passed, f"{name}: {found}"


def test_every_preset_builds_and_states_a_target() -> None:
    from coach.runners.experiment import build_experiment

    missing = [name for name, preset in PRESETS.items() if "target" not in preset]
    assert not missing, f"presets without a pass mark: {missing}"
    for name, preset in PRESETS.items():
        replays = preset["memory"]["type"] in ("replay", "sequence_replay")
        _, settings = load(name, ["memory.capacity=20_000"] if replays else [])
        try:
            build_experiment(settings).source.close()
        except SettingError as error:
            # An environment of an extra that is not installed is named with its pip command.
            assert "pip install" in str(error)  # noqa: PT017
