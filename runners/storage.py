"""Files that are either whole or absent: atomic writes, checksums, tensors without pickling."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from coach.core.errors import CheckpointError, CoachError, ResourceError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

_MOST_HEADER_BYTES = 16 * 2**20  # of a file of tensors: their names, shapes and types
_MEMORY_SHARE = 0.5  # of the free RAM that one file may take


class MissingFileError(CheckpointError):
    """A file that should be there is not."""


def write_file(path: Path, data: bytes) -> dict[str, Any]:
    """Write ``data`` so that ``path`` is never seen half-written; returns its size and checksum.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise unwritable(path, error) from error
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_bounded(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file whose size is checked before any of it is read.

    Args:
        path: the file.
        most: bytes that it may have; left out, half of the free memory.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it cannot be read, is no regular file, or is too large.
    """
    limit = int(psutil.virtual_memory().available * _MEMORY_SHARE) if most is None else most
    try:
        # A pipe would have us wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path} is no regular file.")
            if status.st_size > limit:
                raise CheckpointError(
                    f"{path} has {status.st_size:,} bytes; at most {limit:,} are read.",
                    "It is damaged, or not from a run."
                    if most is not None
                    else "Free some memory.",
                )
            return file.read(limit + 1)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def read_file(path: Path, record: dict[str, Any]) -> bytes:
    """The file's bytes.

    Raises:
        CheckpointError: it is missing, or not what ``record`` says.
    """
    data = read_bounded(path)
    if len(data) != record["bytes"] or hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise CheckpointError(f"{path} is damaged: its checksum does not match")
    return data


def pack(tensors: dict[str, Tensor]) -> bytes:
    """Tensors as safetensors bytes; views are copied, for parameters share one vector."""
    data: bytes = save_tensors(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )
    return data


def unpack(data: bytes) -> dict[str, Tensor]:
    """The inverse of `pack`.

    Raises:
        CheckpointError: these are no such bytes.
    """
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(len(data) - 8, _MOST_HEADER_BYTES):
        raise CheckpointError(f"Tensors with a header of {header:,} bytes are not read.")
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except (SafetensorError, ValueError, RecursionError, KeyError) as error:
        raise CheckpointError(f"Tensors cannot be read: {error}") from error
    return tensors


def split_state(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON values of a flat state."""
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    return tensors, {k: v for k, v in state.items() if k not in tensors}


def freeze(state: dict[str, Any]) -> bytes:
    """A flat state as bytes, for the way to another process.

    Tensors that are pickled on that way would be moved into torch's own shared memory, which takes
    them out of the memory that they share with others here.
    """
    tensors, values = split_state(state)
    text = to_json(values)
    body = struct.pack("<Q", len(text)) + text + pack(tensors)
    return struct.pack("<I", zlib.crc32(body)) + body


def thaw(data: bytes) -> dict[str, Any]:
    """The inverse of `freeze`.

    Raises:
        CoachError: the bytes were damaged on their way.
    """
    (expected,) = struct.unpack_from("<I", data)
    body = memoryview(data)[4:]
    if zlib.crc32(body) != expected:
        raise CoachError("A state was damaged on its way from another process.")
    (length,) = struct.unpack_from("<Q", body)
    values: dict[str, Any] = json.loads(bytes(body[8 : 8 + length]))
    return values | unpack(bytes(body[8 + length :]))


def to_json(values: Any) -> bytes:
    """JSON bytes; the order of keys is kept."""
    return json.dumps(values, indent=1).encode()


def sync_folder(folder: Path) -> None:
    """Make the folder's entries survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> ResourceError:
    """The error to show when something cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            f"The disk is full: {path} cannot be written.",
            "Free some space, or choose another place with --run-dir. Earlier checkpoints of the "
            "run are whole; continue with --resume.",
        )
    return ResourceError(
        f"{path} cannot be written: {error.strerror}.",
        "Check the permissions, or choose another place with --run-dir.",
    )
