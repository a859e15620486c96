"""Checkpoints: everything a run needs to continue bit for bit, written atomically.

A checkpoint is a folder ``step-<n>`` with the state as safetensors and JSON, and a manifest,
written last, that lists every file with its checksum. Stored transitions are not written again and
again: they go to an append-only journal of chunks, each once, and the manifest lists the chunks
that are still needed. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coach.core.errors import CheckpointError
from coach.core.memory import Memory
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

FORMAT = 1
CHUNK_BYTES = 32 * 2**20  # rows wait at most for this much before they are written


@dataclass
class Journal:
    """Chunks of stored rows on disk, and how far they reach.

    Args:
        folder: where they are.
        chunks: their files, with size, checksum and the positions they reach to.
        saved: the positions that the last one reaches to.
        tag: part of the files' names, where several writers may have written the same positions.
    """

    folder: Path
    chunks: list[dict[str, Any]] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    tag: str = ""

    def append_if_many(self, memory: Memory) -> None:
        """Write the rows that are not on disk yet, if they are a chunk's worth."""
        if memory.pending_bytes(self.saved) > CHUNK_BYTES:
            self.append(memory)

    def append(self, memory: Memory) -> None:
        """Write the rows that are not on disk yet as one chunk."""
        rows, reached = memory.rows(self.saved)
        if rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            span = f"{sum(self.saved)}-{sum(reached)}"
            name = f"rows-{span}{self.tag and '-'}{self.tag}.safetensors"
            record = write_file(self.folder / name, pack(rows))
            self.chunks.append({"file": name, "reached": reached, **record})
        self.saved = reached

    def drop_old(self, memory: Memory) -> None:
        """Forget chunks of which the memory holds nothing any more."""
        oldest = memory.oldest()
        self.chunks = [
            chunk
            for chunk in self.chunks
            if any(end > first for end, first in zip(chunk["reached"], oldest))
        ]

    def load(self, memory: Memory) -> None:
        """Give the rows back to a memory, one chunk at a time: together they are all of it.

        Raises:
            CheckpointError: a chunk is missing or damaged.
        """
        for chunk in self.chunks:
            memory.load_rows(unpack(read_file(self.folder / chunk["file"], chunk)))

    def keep_only(self, needed: set[str]) -> None:
        """Remove the files of all other chunks."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name not in needed:
                    path.unlink()


class Checkpointer:
    """Writes and prunes the checkpoints of one run.

    Args:
        folder: the run's folder.
        memory: its stored rows go to the journal.
        keep: how many checkpoints to keep.
        workers: how many have a memory of their own; see `load_latest`.
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
        target = self.folder / f"step-{env_steps:012d}"
        fresh = self.folder / f".step-{env_steps:012d}"
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
            write_file(fresh / "manifest.json", _seal(manifest))
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
            sync_folder(self.folder)
        except OSError as error:
            raise unwritable(target, error) from error
        self._prune()

    def continue_from(self, manifest: dict[str, Any]) -> None:
        """Take over the journal of a loaded checkpoint; later chunks and checkpoints go."""
        self.journal.chunks = list(manifest["journal"])
        self.journal.saved = list(manifest["saved"])
        for folder in checkpoints(self.folder.parent):
            if _step(folder) > manifest["env_steps"]:
                shutil.rmtree(folder)
        self._prune()

    def _prune(self) -> None:
        kept = checkpoints(self.folder.parent)
        for folder in kept[: -self.keep]:
            shutil.rmtree(folder)
        needed = {self.journal.folder.name: {chunk["file"] for chunk in self.journal.chunks}}
        for folder in kept[-self.keep :]:
            try:
                for name, chunks in _journals(_manifest(folder)).items():
                    needed.setdefault(name, set()).update(chunk["file"] for chunk in chunks)
            except CheckpointError:
                continue  # damaged: nothing can be resumed from it anyway
        for name, files in needed.items():
            Journal(self.folder.parent / name).keep_only(files)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first; half-written ones are not among them."""
    return sorted((run / "checkpoints").glob("step-*"))


def load_latest(
    run: Path, memory: Memory | None, warn: Callable[[str], None], workers: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest whole checkpoint of a run: its manifest and its state.

    A damaged checkpoint is reported to ``warn`` and the one before it is used.

    Args:
        run: the run's folder.
        memory: gets the stored rows; ``None`` leaves them where they are.
        warn: told of damaged checkpoints.
        workers: how many have a memory of their own; the checkpoint must be of as many.

    Raises:
        CheckpointError: there is none, all are damaged, it was written by a newer version, or it
            does not fit ``workers``.
    """
    found = checkpoints(run)
    if not found:
        raise CheckpointError(
            f"{run} has no checkpoint to resume from.",
            "Runs write one every run.checkpoint_every steps and when they end.",
        )
    for folder in reversed(found):
        try:
            manifest = _manifest(folder)
            files = manifest["files"]
            data = {name: read_file(folder / name, record) for name, record in files.items()}
            for name, chunks in _journals(manifest).items():
                for chunk in chunks:
                    read_file(run / name / chunk["file"], chunk)
        except CheckpointError as error:
            if isinstance(error, NewerCheckpointError):
                raise
            warn(f"{error.problem}; using the checkpoint before it.")
            continue
        if memory is not None:
            _check_workers(manifest.get("workers", 1), workers)
            Journal(run / "replay", manifest["journal"]).load(memory)
        state = {**json.loads(data["state.json"]), **unpack(data["tensors.safetensors"])}
        return manifest, state
    raise CheckpointError(
        f"All checkpoints of {run} are damaged.",
        "Train again from the preset; the best policy may still be whole (`coach evaluate`).",
    )


def _check_workers(saved: int, workers: int) -> None:
    if saved != workers:
        raise CheckpointError(
            f"This run was trained by {saved} {'workers' if saved > 1 else 'process'} with "
            f"{'memories of their' if saved > 1 else 'a memory of its'} own, and cannot be "
            f"continued by {workers}.",
            f"Add --exchange gradients --workers {saved}."
            if saved > 1
            else "Add --exchange experience.",
        )


class NewerCheckpointError(CheckpointError):
    """Written by a version that this one does not know."""


def save_policy(folder: Path, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write an agent's weights with facts about them; until both are written, the last ones stay.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    folder.mkdir(exist_ok=True)
    data = pack(tensors)
    name = f"agent-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"  # never that of others
    record = {"name": name, **write_file(folder / name, data)}
    write_file(folder / "agent.json", _seal({"format": FORMAT, "file": record, **facts}))
    for path in folder.glob("agent*.safetensors"):
        if path.name != name:
            path.unlink()


def load_policy(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and facts written by `save_policy`.

    Raises:
        CheckpointError: missing or damaged.
    """
    facts = _sealed(folder / "agent.json")
    record = facts["file"]
    name = record.get("name", "agent.safetensors")  # older runs have but one name for it
    return unpack(read_file(folder / name, record)), facts


def _seal(manifest: dict[str, Any]) -> bytes:
    return to_json({**manifest, "seal": hashlib.sha256(to_json(manifest)).hexdigest()})


def _sealed(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        seal = manifest.pop("seal")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: it is no manifest") from error
    if manifest.get("format", 0) > FORMAT:
        raise NewerCheckpointError(
            f"{path} was written by a newer version (format {manifest['format']}; this one knows "
            f"{FORMAT}).",
            "Run: pip install --upgrade coach-rl",
        )
    if hashlib.sha256(to_json(manifest)).hexdigest() != seal:
        raise CheckpointError(f"{path} is damaged: its checksum does not match")
    return manifest


def _journals(manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Chunks that a checkpoint needs, by folder."""
    return {"replay": manifest["journal"], **manifest.get("journals", {})}


def _manifest(folder: Path) -> dict[str, Any]:
    return _sealed(folder / "manifest.json")


def _step(folder: Path) -> int:
    return int(folder.name.split("-")[1])
