"""Files of one's own are found beside the preset and in the current folder, and found again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from coach.core.errors import SettingError
from coach.core.registry import load_plugin
from coach.environments.making import EnvironmentSettings
from coach.runners import preset as presets
from typer.testing import CliRunner

import coach_cli

GRID = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class Grid(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, self.t == 6, False, {}
"""
PRESET = """
environment: {{id: '{id}'}}
agent: {{type: dqn, network: {{embedder: {{type: mlp, hidden: [8]}}, heads: {{q: q}}}}}}
memory: {{type: replay, capacity: 200, warmup: 20, batch_size: 8}}
run: {{steps: 60, envs: 2}}
evaluation: {{every: 0}}
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder of a preset, and another one that the process is in."""
    preset, current = tmp_path / "presets", tmp_path / "current"
    preset.mkdir()
    current.mkdir()
    monkeypatch.chdir(current)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return preset, current


def made(preset: Path, id: str, *overrides: str) -> EnvironmentSettings:
    (preset / "grid.yaml").write_text(PRESET.format(id=id))
    _, settings = presets.load(str(preset / "grid.yaml"), overrides)
    environment = EnvironmentSettings(**settings["environment"])
    assert environment.make().reset(seed=1)[0].tolist() == [0, 0]
    return environment


@pytest.mark.parametrize("where", ["presets", "current"])
@pytest.mark.parametrize("form", ["{}:Grid", "{}.py:Grid", "{}_ids:{}-v3"])
def test_where_files_are_found(where: str, form: str, places: tuple[Path, Path]) -> None:
    preset, current = places
    name = f"lookup_{where}_{len(form)}"
    folder = {"presets": preset, "current": current}[where]
    (folder / f"{name}.py").write_text(GRID)
    (folder / f"{name}_ids.py").write_text(
        f"import gymnasium as gym\ngym.register('{name}-v3', entry_point='{name}:Grid')\n"
    )
    environment = made(preset, form.format(name, name))
    assert environment.id.startswith(str(folder))  # so that it is found from everywhere


def test_a_plugin_serves_under_its_module_name(places: tuple[Path, Path]) -> None:
    preset, current = places
    elsewhere = current.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lookup_plugin.py").write_text(GRID)
    module = load_plugin("../elsewhere/lookup_plugin.py")
    environment = made(preset, "lookup_plugin:Grid")
    assert type(environment.make()) is module.Grid


def test_a_module_that_is_nowhere_is_said_with_where_to_put_it(places: tuple[Path, Path]) -> None:
    with pytest.raises(SettingError, match=r"no_such_module_at_all(.|\n)*beside the preset"):
        made(places[0], "no_such_module_at_all:Grid")


def test_a_run_finds_its_environment_in_workers_and_from_elsewhere(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    preset, current = places
    (preset / "lookup_run.py").write_text(GRID)
    (preset / "grid.yaml").write_text(PRESET.format(id="lookup_run:Grid"))
    call = ["train", "../presets/grid.yaml", "--quiet", "--run-dir", "runs"]
    call += ["--mode", "sync", "--workers", "2", "--worker-kind", "process"]
    trained = CliRunner().invoke(coach_cli.app, call)
    assert trained.exit_code == 0, trained.output
    (run,) = (current / "runs").glob("grid/*")
    monkeypatch.chdir("/")
    played = CliRunner().invoke(coach_cli.app, ["evaluate", str(run), "--episodes", "2"])
    assert played.exit_code == 0, played.output
    assert "6.00" in played.output
