"""Files that are either whole or absent: atomic writes, checksums, tensors without pickling."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from coach.core.errors import CheckpointError, ResourceError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor


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
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise unwritable(path, error) from error
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_file(path: Path, record: dict[str, Any]) -> bytes:
    """The file's bytes.

    Raises:
        CheckpointError: it is missing, or not what ``record`` says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
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
    """The inverse of `pack`."""
    tensors: dict[str, Tensor] = load_tensors(data)
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
    return struct.pack("<Q", len(text)) + text + pack(tensors)


def thaw(data: bytes) -> dict[str, Any]:
    """The inverse of `freeze`."""
    (length,) = struct.unpack_from("<Q", data)
    values: dict[str, Any] = json.loads(data[8 : 8 + length])
    return values | unpack(data[8 + length :])


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
