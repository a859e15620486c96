"""The folder of a run: where it is, what identifies it, how to find it again.

``run.json`` holds the resolved settings, sealed, and every change that was made to them.
``preset.yaml`` shows the same settings to people; it is compared with ``run.json`` before use.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from coach.core.errors import CheckpointError, CoachError
from coach.core.versions import git_revision, versions
from coach.runners.changes import Change, dated, flat
from coach.runners.preset import SECTIONS, dump
from coach.runners.seals import (
    FORMAT,
    MOST_JSON_BYTES,
    MOST_YAML_BYTES,
    parse_json,
    parse_settings,
    refuse_outside,
    seal,
    too_old,
    unsealed,
)
from coach.runners.signatures import is_signed, sign
from coach.runners.storage import (
    MissingFileError,
    read_bounded,
    to_json,
    unwritable,
    write_file,
)
from coach.runners.trust import command

_NAME = re.compile(r"(?P<stamp>\d{8}-\d{6})-seed(?P<seed>\d+)(-(?P<number>\d+))?")
_OLD_FACTS = {"preset", "plugins", "versions", "git"}  # of run.json before it was sealed
_SIGNATURE = ("signature", "own")
_CHANGE = {"time", "env_steps", "key", "before", "after"}
_MOST_EDITS_SHOWN = 3


@dataclass
class RunRecord:
    """What run.json holds.

    Args:
        preset: name of the preset.
        settings: resolved, of all sections.
        plugins: that the run imports.
        plugin_sums: SHA-256 of those that are files.
        versions: of packages, when the run began.
        git: revision of the user's code, when the run began.
        changes: every change of a setting, with its date and step.
        rendered: SHA-256 of preset.yaml as it was written each time, the newest last.
        signature: of all this by the user who has written it, see `coach.runners.signatures`.
        own: whether that is the user who reads it.
    """

    preset: str
    settings: dict[str, Any]
    plugins: list[str]
    plugin_sums: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    git: str | None = field(default_factory=git_revision)
    changes: list[dict[str, Any]] = field(default_factory=list)
    rendered: list[str] = field(default_factory=list)
    signature: str = ""
    own: bool = False

    def write(self, folder: Path) -> None:
        """Write run.json and, after it, preset.yaml.

        Raises:
            ResourceError: the folder cannot be written.
        """
        text = self._text().encode()
        digest = hashlib.sha256(text).hexdigest()
        self.rendered = [*(old for old in self.rendered if old != digest), digest]
        facts = {name: value for name, value in vars(self).items() if name not in _SIGNATURE}
        facts["settings"] = dump(self.settings)  # JSON would turn keys that are numbers into texts
        facts["signature"] = sign(to_json(facts))
        write_file(folder / "run.json", seal({"format": FORMAT, **facts}))
        write_file(folder / "preset.yaml", text)

    def change(
        self, folder: Path, settings: dict[str, Any], changes: Sequence[Change], env_steps: int
    ) -> None:
        """Write changed settings, and that they have changed.

        Raises:
            ResourceError: the folder cannot be written.
        """
        self.settings = settings
        self.changes += dated(changes, env_steps)
        self.write(folder)

    def _text(self) -> str:
        lines = [
            f"# {one['time']}, at step {one['env_steps']:,}: "
            f"{Change(one['key'], one['before'], one['after'])}"
            for one in self.changes
        ]
        lines = [line.replace("\n", " ") for line in lines]
        title = ["# Changes that were made to this run:"] if lines else []
        return "".join(f"{line}\n" for line in (*title, *lines)) + dump(self.settings)


def create(
    root: Path, preset: str, seed: int, settings: dict[str, Any], plugins: list[str]
) -> Path:
    """Make ``root/preset/<time>-seed<k>/`` with the resolved preset and the versions in it.

    Raises:
        ResourceError: the folder cannot be made or written.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = _make(root / preset, f"{stamp}-seed{seed}")
    RunRecord(preset, settings, plugins, sums_of(plugins)).write(folder)
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


def read(folder: Path) -> RunRecord:
    """What identifies a run, checked.

    Raises:
        CoachError: this is no run folder.
        CheckpointError: run.json is damaged or of another version, or a link leads out of the
            folder.
    """
    path = folder / "run.json"
    try:
        data = read_bounded(path, MOST_JSON_BYTES)
    except MissingFileError as error:
        raise CoachError(
            f"{folder} is no run folder: it has no run.json.",
            "Runs are in runs/<preset>/<time>-seed<k>/.",
        ) from error
    refuse_outside(folder)
    facts = parse_json(data, path)
    if isinstance(facts, dict) and facts.keys() == _OLD_FACTS:
        raise too_old(path)
    facts = unsealed(facts, path)
    settings = parse_settings(str(facts.get("settings")).encode(), path)
    signed = {name: value for name, value in facts.items() if name not in ("format", "signature")}
    own = is_signed(to_json(signed), str(facts.get("signature", "")))
    return _record(path, {**facts, "settings": settings, "own": own})


def _record(path: Path, facts: dict[str, Any]) -> RunRecord:
    """The record in a file that anybody may have written."""
    facts.pop("format", None)
    try:
        record = RunRecord(**facts)
    except TypeError as error:
        raise CheckpointError(f"{path} is damaged: it has other entries than it should") from error
    kinds = {"settings": dict, "plugins": list, "plugin_sums": dict, "versions": dict}
    kinds |= {"changes": list, "rendered": list}
    whole = all(isinstance(getattr(record, name), kind) for name, kind in kinds.items())
    texts = (record.preset, *record.plugins, *record.rendered) if whole else ()
    lists = whole and all(
        isinstance(one, dict) and one.keys() == _CHANGE and isinstance(one["env_steps"], int)
        for one in record.changes
    )
    if not lists or not all(isinstance(text, str) for text in texts):
        raise CheckpointError(f"{path} is damaged: its entries have other types than they should")
    for name in ("environment", "agent", "memory", "run"):
        if not isinstance(record.settings.get(name), str | dict):
            raise CheckpointError(f"{path} is damaged: its settings have no {name}")
    return record


def edits(folder: Path, record: RunRecord) -> str:
    """In words, how preset.yaml differs from run.json; empty where it does not.

    A file that was written before the last change, or is missing, is not an edit: it is replaced
    when the run goes on.
    """
    path = folder / "preset.yaml"
    try:
        data = read_bounded(path, MOST_YAML_BYTES)
        if hashlib.sha256(data).hexdigest() in record.rendered:
            return ""
        found = flat(parse_settings(data, path))
    except MissingFileError:
        return ""
    except CheckpointError as error:
        return f"{error.problem}."
    kept = flat(record.settings)
    differing = [name for name in {**kept, **found} if kept.get(name) != found.get(name)]
    said = [f"{n} is {found.get(n)!r}, the run has {kept.get(n)!r}" for n in differing]
    more = len(said) - _MOST_EDITS_SHOWN
    tail = f"; and {more} more" if more > 0 else ""
    what = "; ".join(said[:_MOST_EDITS_SHOWN]) or "its text is another one"
    return f"{path} is not as the run has written it: {what}{tail}."


def is_current(folder: Path, record: RunRecord) -> bool:
    """Whether preset.yaml is what was written last."""
    try:
        data = read_bounded(folder / "preset.yaml", MOST_YAML_BYTES)
    except CheckpointError:
        return False
    return record.rendered[-1:] == [hashlib.sha256(data).hexdigest()]


def refuse_edits(folder: Path, record: RunRecord) -> None:
    """Stop where preset.yaml was edited, or is damaged.

    Raises:
        CoachError: with the command for either case.
    """
    difference = edits(folder, record)
    if difference:
        resume = command("coach", "train", folder, "--resume")
        raise CoachError(
            difference,
            f"If you have edited it: {resume} --accept-edits. "
            "(To change a setting, --set KEY=VALUE does as well.)\n"
            f"If not, it is damaged: {command('rm', folder / 'preset.yaml')}, and it is written "
            "again from run.json.",
        )


def edited_settings(folder: Path) -> dict[str, Any]:
    """The settings in preset.yaml, whatever run.json has.

    Raises:
        CheckpointError: they cannot be read, or have unknown sections.
    """
    path = folder / "preset.yaml"
    settings = parse_settings(read_bounded(path, MOST_YAML_BYTES), path)
    unknown = [name for name in settings if name not in SECTIONS]
    if unknown:
        raise CheckpointError(f"{path}: unknown section '{unknown[0]}'")
    return settings


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / "run.json").is_file()


def runs_of(root: Path, preset: str, seed: int | None = None) -> list[Path]:
    """The runs of a preset, of one seed if given, oldest first."""
    found: list[tuple[str, int, int, Path]] = []
    parent = root / preset
    for path in parent.iterdir() if parent.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        if name and is_run(path) and seed in (None, int(name["seed"])):
            began = (path / "run.json").stat().st_mtime_ns
            found.append((name["stamp"], int(name["number"] or 1), began, path))
    if seed is None:  # several seeds may have begun in the same second
        found.sort(key=lambda run: (run[0], run[2]))
    else:
        found.sort()
    return [path for *_, path in found]


def latest(root: Path, preset: str, seed: int | None) -> Path:
    """The newest run of a preset, of one seed if given.

    Raises:
        CoachError: there is none.
    """
    runs = runs_of(root, preset, seed)
    if not runs:
        of_seed = "" if seed is None else f" with seed {seed}"
        raise CoachError(
            f"There is no run of {preset}{of_seed} in {root} to resume.",
            "Give the run's folder: coach train RUN_FOLDER --resume.",
        )
    return runs[-1]


def sums_of(plugins: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the plugins that are files."""
    files = [plugin for plugin in plugins if Path(plugin).is_file()]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def changed_plugins(record: RunRecord, plugins: Sequence[str]) -> list[str]:
    """Plugins that are files and have changed since the run recorded them."""
    before = {Path(name).name: digest for name, digest in record.plugin_sums.items()}
    now = sums_of(plugins)
    return [name for name, sum_ in now.items() if before.get(Path(name).name, sum_) != sum_]
