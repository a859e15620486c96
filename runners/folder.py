"""The folder of a run: where it is, what identifies it, how to find it again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from coach.core.errors import CoachError
from coach.core.versions import git_revision, versions
from coach.runners.preset import dump
from coach.runners.storage import to_json, unwritable, write_file


def create(
    root: Path, preset: str, seed: int, settings: dict[str, Any], plugins: list[str]
) -> Path:
    """Make ``root/preset/<time>-seed<k>/`` with the resolved preset and the versions in it.

    Raises:
        ResourceError: the folder cannot be made or written.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = _make(root / preset, f"{stamp}-seed{seed}")
    write_file(folder / "preset.yaml", dump(settings).encode())
    facts = {"preset": preset, "plugins": plugins, "versions": versions(), "git": git_revision()}
    write_file(folder / "run.json", to_json(facts))
    return folder


def _make(parent: Path, name: str) -> Path:
    folder, number = parent / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another run began in the same second
            if not parent.is_dir():
                raise unwritable(folder, NotADirectoryError(20, "a file is in the way")) from None
            number += 1
            folder = parent / f"{name}-{number}"
        except OSError as error:
            raise unwritable(folder, error) from error
        else:
            return folder


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The resolved preset and the facts of a run.

    Raises:
        CoachError: this is no run folder.
    """
    try:
        settings = yaml.safe_load((folder / "preset.yaml").read_text(encoding="utf-8"))
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CoachError(
            f"{folder} is no run folder: {error}", "Runs are in runs/<preset>/<time>-seed<k>/."
        ) from error
    return settings, facts


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / "preset.yaml").is_file() and (folder / "run.json").is_file()


def latest(root: Path, preset: str, seed: int | None) -> Path:
    """The newest run of a preset, of one seed if given.

    Raises:
        CoachError: there is none.
    """
    pattern = "*" if seed is None else f"*-seed{seed}*"
    runs = sorted(path for path in (root / preset).glob(pattern) if is_run(path))
    if not runs:
        of_seed = "" if seed is None else f" with seed {seed}"
        raise CoachError(
            f"There is no run of {preset}{of_seed} in {root} to resume.",
            "Give the run's folder: coach train RUN_FOLDER --resume.",
        )
    return runs[-1]
