"""What a wheel installs works on its own, away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the built wheel's content in it."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(source)]
    subprocess.run([*build, "--outdir", str(place)], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--target", str(place / "site")]
    subprocess.run([*pip, *options, str(wheel)], check=True, capture_output=True)
    return place / "site"


def coach(installed: Path, elsewhere: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coach_cli", *arguments],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_every_package_is_in_it(installed: Path) -> None:
    here = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/**/py.typed")} | {
        path.parent.relative_to(ROOT) for path in ROOT.glob("*/py.typed")
    }
    there = {path.parent.relative_to(installed / "coach") for path in installed.rglob("py.typed")}
    assert {p for p in here if p.parts[0] not in ("build", ".venv")} == there
    assert {p.name for p in (ROOT / "presets").glob("*.yaml")} == {
        p.name for p in (installed / "coach" / "presets").glob("*.yaml")
    }
    assert not (installed / "agents").exists(), "nothing generic lands in site-packages"


def test_the_installed_code_is_what_runs(installed: Path, tmp_path: Path) -> None:
    code = (
        "import coach.core.batch, coach_cli; print(coach.core.batch.__file__, coach_cli.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(installed)) for path in done.stdout.split())


def test_list_train_evaluate(installed: Path, tmp_path: Path) -> None:
    assert "CartPole_DQN" in coach(installed, tmp_path, "list", "presets").stdout
    small = ["--steps", "600", "--set", "memory.warmup=100", "--set", "evaluation.every=300"]
    done = coach(installed, tmp_path, "train", "CartPole_DQN", *small)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "CartPole_DQN").iterdir()
    done = coach(installed, tmp_path, "evaluate", str(folder), "--episodes", "2")
    assert done.returncode == 0, done.stderr
    assert "mean return" in done.stdout
