"""Every preset reaches its own pass mark, over its own number of seeds (`make learn`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from coach.core.errors import SettingError
from coach.runners.preset import load, preset_files
from coach.runners.verify import Verdict, verify

WITH_TARGET = [
    name
    for name, path in preset_files().items()
    if "target" in yaml.safe_load(path.read_text(encoding="utf-8"))
]


@pytest.mark.learning
@pytest.mark.parametrize("name", WITH_TARGET)
def test_preset_reaches_its_target(name: str, tmp_path: Path) -> None:
    verdict: Verdict = verify(*load(name), tmp_path, seeds=None)
    assert verdict.passed, f"{name}: {verdict.means} against {verdict.target}"


def test_every_preset_builds_and_states_a_target() -> None:
    from coach.runners.experiment import build_experiment

    missing = set(preset_files()) - set(WITH_TARGET)
    assert not missing, f"presets without a pass mark: {missing}"
    for name in preset_files():
        _, settings = load(name, ["memory.capacity=1000"] if _replays(name) else [])
        try:
            build_experiment(settings).source.close()
        except SettingError as error:
            # An environment of an extra that is not installed is named with its pip command.
            assert "pip install" in str(error)  # noqa: PT017


def _replays(name: str) -> bool:
    return bool(load(name)[1]["memory"]["type"] == "replay")
