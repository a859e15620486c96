"""Taking up a run again: what is checked before anything is loaded, and what is written after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coach.core.damaged import set_aside
from coach.core.errors import CheckpointError, CoachError, SettingError
from coach.runners import folder as run_folder
from coach.runners.changes import changes_between, likely_changes, refuse_fixed
from coach.runners.checkpoint import Found, check_workers, find_latest
from coach.runners.seals import FORMAT, MOST_JSON_BYTES, parse_json, seal, unsealed
from coach.runners.storage import MissingFileError, read_bounded, write_file
from coach.runners.trust import command

RESULT = "result.json"


class FinishedRunError(CoachError):
    """A run has come to its end: there is nothing to resume."""


class Resumption:
    """A run that is taken up again.

    Args:
        folder: of the run.
        given: the settings it goes on with, before defaults are filled in.
        plugins: that it goes on with.
        warn: told of damage, and of what has changed.
        skip_episodes: leave out so many episodes of every environment.
        accept_edits: whether preset.yaml may differ from what the run has written.
        once: whether the settings are for this start alone, so that they are not written.
        finished: whether the run may have come to its end already.

    Raises:
        CoachError: this is no run, or preset.yaml was edited or is damaged.
        SettingError: a setting has changed that cannot.
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[str, Any],
        plugins: list[str],
        warn: Callable[[str], None],
        skip_episodes: int = 0,
        accept_edits: bool = False,
        once: bool = False,
        finished: bool = True,
    ) -> None:
        self.folder, self.given, self.plugins, self.warn = folder, given, plugins, warn
        self.skip_episodes, self.once, self.finished = skip_episodes, once, finished
        self.record = record = run_folder.read(folder)
        if not accept_edits:
            run_folder.refuse_edits(folder, record)
        refuse_fixed(likely_changes(record.settings, given), record.settings, folder)

    def find(self, plain: Mapping[str, Any], workers: int) -> Found:
        """The checkpoint to go on from.

        Args:
            plain: the settings it goes on with, defaults included.
            workers: how many have a memory of their own.

        Raises:
            SettingError: a setting has changed that cannot.
            FinishedRunError: there is nothing to do.
            CheckpointError: there is no whole checkpoint, or it does not fit ``workers``.
        """
        record = self.record
        self.changes = changes_between(record.settings, plain, self.given)
        refuse_fixed(self.changes, record.settings, self.folder)
        found = find_latest(self.folder, self.warn)
        check_workers(found.manifest, workers)
        done, steps = found.manifest["env_steps"], plain["run"]["steps"]
        if done > steps and any(change.key == "run.steps" for change in self.changes):
            raise SettingError(
                "run.steps",
                f"{steps:,} steps are fewer than the {done:,} that the run has taken",
                f"Leave it out, or choose more: {self._resume('--steps', 2 * done)}",
            )
        if not self.finished and done >= steps and self._ended(found):
            raise FinishedRunError(
                f"{self.folder} is finished: {done:,} of {steps:,} steps are taken. Nothing was "
                "done.",
                f"To train on: {self._resume('--steps', 2 * done)}\n"
                f"To play its policy: {command('coach', 'evaluate', self.folder)}",
            )
        return found

    def write(self, plain: dict[str, Any], env_steps: int) -> None:
        """Write what has changed to the run, once its state has been loaded.

        Raises:
            ResourceError: the folder cannot be written.
        """
        record = self.record
        for name in run_folder.changed_plugins(record, self.plugins):
            self.warn(f"The plugin {name} has changed since the run recorded it.")
        if self.once:
            return
        preset = self.folder / "preset.yaml"
        if not self.changes and record.plugins == self.plugins:
            if run_folder.is_current(self.folder, record):
                return
            self.warn(f"{preset} was missing or out of date, and is written again.")
        for change in self.changes:
            self.warn(f"Changed from step {env_steps:,} on: {change}")
        record.plugins = self.plugins
        record.plugin_sums |= run_folder.sums_of(self.plugins)
        record.change(
            self.folder, plain if self.changes else record.settings, self.changes, env_steps
        )

    def _ended(self, found: Found) -> bool:
        """Whether the run came to its end in order, so that no evaluation waits."""
        return (self.folder / RESULT).exists() and not found.state.get("evaluations/env_steps")

    def _resume(self, *words: object) -> str:
        return command("coach", "train", self.folder, "--resume", *words)


def write_result(folder: Path, facts: dict[str, Any]) -> None:
    """Write what a run came to.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    write_file(folder / RESULT, seal({"format": FORMAT, **facts}))


def seconds_so_far(folder: Path, warn: Callable[[str], None]) -> float:
    """How long a run has trained already, as far as it came to write that down.

    A damaged file is kept under another name.
    """
    path = folder / RESULT
    try:
        facts = parse_json(read_bounded(path, MOST_JSON_BYTES), path)
        facts = unsealed(facts, path)
        if isinstance(facts.get("seconds"), int | float):
            return float(facts["seconds"])
        raise CheckpointError(f"{path} is damaged: it has no seconds")
    except MissingFileError:
        return 0.0
    except CheckpointError as error:
        warn(
            f"{error.problem}; it is now {set_aside(path)}. "
            "The wall time before is not counted in the result."
        )
        return 0.0
