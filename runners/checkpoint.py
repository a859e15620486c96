"""Checkpoints: everything a run needs to continue bit for bit, written atomically.

A checkpoint is a folder ``step-<n>`` with the state as safetensors and JSON, and a manifest,
written last, that lists every file with its checksum. Stored transitions are not written again and
again: they go to an append-only journal of chunks, each once, and the manifest lists the chunks
that are still needed. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coach.core.errors import CheckpointError
from coach.core.memory import Memory
from coach.runners.journal import Journal
from coach.runners.manifest import checked_policy, read_manifest
from coach.runners.seals import FORMAT, OtherVersionError, parse_json, read_sealed, seal
from coach.runners.storage import (
    pack,
    read_file,
    split_state,
    sync_folder,
    to_json,
    unpack,
    unwritable,
    write_file,
)

_NAME = re.compile(r"step-(?P<step>\d+)(-(?P<again>\d+))?")


class Checkpointer:
    """Writes and prunes the checkpoints of one run.

    Args:
        folder: the run's folder.
        memory: its stored rows go to the journal.
        keep: how many checkpoints to keep.
        workers: how many have a memory of their own; see `check_workers`.
    """

    def __init__(self, folder: Path, memory: Memory, keep: int, workers: int = 1) -> None:
        self.workers = workers
        self.folder, self.memory, self.keep = folder / "checkpoints", memory, keep
        self.journal = Journal(folder / "replay")

    def tick(self) -> None:
        """Move rows to disk now and then, so that a checkpoint never has many to write."""
        self.journal.append_if_many(self.memory)

    def save(
        self,
        env_steps: int,
        state: dict[str, Any],
        journals: dict[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        """Write a checkpoint, then drop what is not needed any more.

        Args:
            env_steps: how far the run is.
            state: flat, of everything but stored rows.
            journals: chunks that others have written, by folder.

        Raises:
            ResourceError: the disk is full or cannot be written; earlier checkpoints stay whole.
        """
        if self.memory.pending_bytes(self.journal.saved) > 0:
            self.journal.append(self.memory)
        self.journal.drop_old(self.memory)
        target = self._free_name(env_steps)
        fresh = self.folder / f".{target.name}"
        tensors, values = split_state(state)
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            files = {
                "tensors.safetensors": write_file(fresh / "tensors.safetensors", pack(tensors)),
                "state.json": write_file(fresh / "state.json", to_json(values)),
            }
            manifest = {
                "format": FORMAT,
                "env_steps": env_steps,
                "workers": self.workers,
                "files": files,
                "journal": self.journal.chunks,
                "saved": self.journal.saved,
                "journals": journals or {},
            }
            write_file(fresh / "manifest.json", seal(manifest))
            fresh.rename(target)  # a name that was free: until now the one before is complete
            sync_folder(self.folder)
            self._prune()
        except OSError as error:
            raise unwritable(target, error) from error

    def continue_from(self, manifest: dict[str, Any]) -> None:
        """Remove the checkpoints after the one that was loaded, and what only they need."""
        for folder in checkpoints(self.folder.parent):
            if _place(folder)[0] > manifest["env_steps"]:
                _remove(folder)
        self._prune()

    def _free_name(self, env_steps: int) -> Path:
        """A name for a checkpoint that no other has, and that comes after all of the same step."""
        name = f"step-{env_steps:012d}"
        taken = [_place(path) for path in checkpoints(self.folder.parent)]
        again = max((number for step, number in taken if step == env_steps), default=0)
        return self.folder / (f"{name}-{again + 1}" if again else name)

    def _prune(self) -> None:
        newest = {_place(path)[0]: path for path in checkpoints(self.folder.parent)}  # of each step
        kept = list(newest.values())[-self.keep :]
        for folder in checkpoints(self.folder.parent):
            if folder not in kept:
                _remove(folder)
        for left in self.folder.glob(".step-*"):  # what a process has left that was killed
            shutil.rmtree(left, ignore_errors=True)
        needed = {self.journal.folder.name: {chunk["file"] for chunk in self.journal.chunks}}
        for folder in kept:
            try:
                for name, chunks in _journals(read_manifest(folder)).items():
                    needed.setdefault(name, set()).update(chunk["file"] for chunk in chunks)
            except CheckpointError:
                continue  # damaged: nothing can be resumed from it anyway
        for name, files in needed.items():
            Journal(self.folder.parent / name).keep_only(files)


@dataclass
class Found:
    """A checkpoint whose own files are whole.

    Args:
        manifest: see `coach.runners.manifest.Manifest`.
        state: flat, of everything but stored rows.
        replay_is_whole: whether all stored rows that belong to it are there.
    """

    manifest: dict[str, Any]
    state: dict[str, Any]
    replay_is_whole: bool = True


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first; half-written ones are not among them."""
    folder = run / "checkpoints"
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_place)


def find_latest(run: Path, warn: Callable[[str], None], replay: bool = True) -> Found:
    """The newest whole checkpoint of a run.

    A damaged checkpoint is reported to ``warn`` and the one before it is used. Where the replay of
    every one is damaged, the newest with whole weights is used.

    Args:
        run: the run's folder.
        warn: told of damaged checkpoints.
        replay: whether the stored rows matter; playing a policy needs none.

    Raises:
        CheckpointError: there is none, all are damaged, or one was written by a newer version.
    """
    found = checkpoints(run)
    if not found:
        raise CheckpointError(
            f"{run} has no checkpoint to resume from.",
            "Runs write one every run.checkpoint_every steps and when they end.",
        )
    without_replay: Found | None = None
    complaints: list[str] = []
    for folder in reversed(found):
        try:
            one = _load(folder)
            if replay:
                _verify_replay(run, one.manifest)
        except OtherVersionError:
            raise
        except _DamagedReplayError as error:
            one.replay_is_whole = False
            without_replay = without_replay or one
            complaints.append(error.problem)
        except CheckpointError as error:
            complaints.append(error.problem)
        else:
            for complaint in complaints:
                warn(f"{complaint}; using the checkpoint before it.")
            return one
    if without_replay is not None:
        for name, chunks in without_replay.manifest["journals"].items():
            journal = Journal(run / name, chunks)
            lost = journal.whole_from(warn)
            if lost:
                warn(f"{lost} of {len(chunks)} parts of the replay in {run / name} are lost.")
        return without_replay
    for complaint in complaints:
        warn(complaint)
    raise CheckpointError(
        f"All checkpoints of {run} are damaged.",
        "Train again from the preset; the best policy may still be whole (`coach evaluate`).",
    )


def check_workers(manifest: dict[str, Any], workers: int) -> None:
    """Refuse to go on with another number of memories than the checkpoint is of.

    Raises:
        CheckpointError: with the flags that fit.
    """
    saved = manifest["workers"]
    if saved != workers:
        raise CheckpointError(
            f"This run was trained by {saved} {'workers' if saved > 1 else 'process'} with "
            f"{'memories of their' if saved > 1 else 'a memory of its'} own, and cannot be "
            f"continued by {workers}.",
            f"Add --exchange gradients --workers {saved}."
            if saved > 1
            else "Add --exchange experience.",
        )


class _DamagedReplayError(CheckpointError):
    """A chunk of stored rows is missing or damaged."""


def _load(folder: Path) -> Found:
    manifest = read_manifest(folder)
    data = {name: read_file(folder / name, record) for name, record in manifest["files"].items()}
    values = parse_json(data["state.json"], folder / "state.json")
    if not isinstance(values, dict):
        raise CheckpointError(f"{folder / 'state.json'} is damaged: it holds no state")
    return Found(manifest, {**values, **unpack(data["tensors.safetensors"])})


def _verify_replay(run: Path, manifest: dict[str, Any]) -> None:
    for name, chunks in _journals(manifest).items():
        for chunk in chunks:
            try:
                read_file(run / name / chunk["file"], chunk)
            except CheckpointError as error:
                raise _DamagedReplayError(error.problem) from error


def save_policy(folder: Path, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write an agent's weights with facts about them; until both are written, the last ones stay.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        data = pack(tensors)
        name = f"agent-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"  # never that of others
        record = {"name": name, **write_file(folder / name, data)}
        write_file(folder / "agent.json", seal({"format": FORMAT, "file": record, **facts}))
        for path in folder.glob("agent*.safetensors"):
            if path.name != name:
                path.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error


def has_policy(folder: Path) -> bool:
    """Whether `save_policy` has ever come to its end there."""
    return (folder / "agent.json").exists()


def load_policy(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and facts written by `save_policy`.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = folder / "agent.json"
    facts = read_sealed(path)
    record = checked_policy(facts.get("file"), path)
    return unpack(read_file(folder / record["name"], record)), facts


def _journals(manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Chunks that a checkpoint needs, by folder."""
    return {"replay": manifest["journal"], **manifest["journals"]}


def _place(folder: Path) -> tuple[int, int]:
    """The step of a checkpoint, and which of those of that step it is."""
    name = _NAME.fullmatch(folder.name)
    assert name is not None
    return int(name["step"]), int(name["again"] or 1)


def _remove(folder: Path) -> None:
    """Remove a checkpoint, so that a part of it is never taken for one."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
