"""The journal of stored rows: append-only chunks on disk, each row written once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coach.core.errors import CheckpointError
from coach.core.memory import Memory
from coach.runners.manifest import checked_chunks
from coach.runners.storage import pack, read_file, unpack, write_file

CHUNK_BYTES = 32 * 2**20  # rows wait at most for this much before they are written
_FILE = re.compile(r"\.?rows-.*\.safetensors(\.tmp)?")


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

    def take_over(self, chunks: Any, saved: list[int]) -> None:
        """Go on with chunks that a checkpoint names.

        Raises:
            CheckpointError: they are no records of chunks.
        """
        self.chunks, self.saved = checked_chunks(chunks, self.folder), list(saved)

    def whole_from(self, warn: Callable[[str], None]) -> int:
        """The first of the chunks from which on all are whole; their number if the last is not.

        Args:
            warn: told of the newest one that is missing or damaged.
        """
        for number in reversed(range(len(self.chunks))):
            try:
                self._read(self.chunks[number])
            except CheckpointError as error:
                warn(error.problem)
                return number + 1
        return 0

    def restore(self, memory: Memory, state: dict[str, Any], warn: Callable[[str], None]) -> None:
        """Give a memory its state and its rows back, one chunk at a time.

        Where chunks are missing or damaged, the memory gets the rows after the last of these. If
        none is left, it begins empty, as in a new run.

        Args:
            memory: a fresh one.
            state: see `Memory.load_state_dict`.
            warn: told what has been lost.

        Raises:
            CheckpointError: rows were lost, and the memory cannot do with a part of them.
        """
        first = self.whole_from(warn)
        if first and first == len(self.chunks):
            self.chunks, self.saved = [], []
            warn("Nothing of the replay could be restored: it fills again, as in a new run.")
            return
        for chunk in self.chunks[first:]:
            memory.load_rows(unpack(self._read(chunk)))
        memory.load_state_dict(state)
        if first:
            begin = self.chunks[first - 1]["reached"]
            lost = sum(max(end - start, 0) for start, end in zip(memory.oldest(), begin))
            memory.forget(begin)
            self.chunks = self.chunks[first:]
            warn(
                f"{lost:,} stored steps of the replay are lost, the "
                f"{sum(self.saved) - sum(begin):,} newest are restored. The run goes on, but not "
                "to the same numbers as before."
            )

    def keep_only(self, needed: set[str]) -> None:
        """Remove the files of all other chunks, and nothing else."""
        if self.folder.is_dir() and not self.folder.is_symlink():
            for path in self.folder.iterdir():
                if path.name not in needed and _FILE.fullmatch(path.name):
                    path.unlink()

    def _read(self, chunk: dict[str, Any]) -> bytes:
        return read_file(self.folder / chunk["file"], chunk)
