"""How observations and actions of a spec lie in memory: one place decides shapes and types."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable
from operator import setitem
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from coach.core.batch import leaves
from coach.core.errors import ResourceError, SettingError
from coach.core.spec import AnySpace, Spec, require_observation
from gymnasium import spaces
from torch import Tensor

#: Makes a zeroed tensor of a shape and type somewhere.
Zeros: TypeAlias = Callable[[tuple[int, ...], torch.dtype], Tensor]


def observation_layout(space: AnySpace) -> Any:
    """A tree of ``(shape, dtype)`` like the observation; float64 is stored as float32.

    Raises:
        SettingError: the space cannot be stored as arrays.
    """
    require_observation(space)
    if isinstance(space, spaces.Dict):
        for key in space.spaces:
            if not isinstance(key, str):
                raise SettingError(
                    "environment",
                    f"the key {key!r} of the observation is of type {type(key).__name__}",
                    "Name the parts of a Dict observation with text: Dict(position=Box(...)).",
                )
        return {key: observation_layout(inner) for key, inner in space.spaces.items()}
    return tuple(space.shape or ()), torch_dtype(np.dtype(space.dtype))


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """The stored type of a NumPy type: floats as float32, small integers as they are."""
    if dtype.kind == "f":
        return torch.float32
    if dtype in (np.dtype(np.uint8), np.dtype(np.int8), np.dtype(bool)):
        return torch.from_numpy(np.zeros(1, dtype)).dtype
    return torch.int64


def action_layout(space: AnySpace) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of an agent's action: a number for Discrete, else a flat vector."""
    if isinstance(space, spaces.Discrete):
        return (), torch.int64
    size = int(np.prod(space.shape or ()))
    return (size,), torch.float32 if isinstance(space, spaces.Box) else torch.int64


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A zeroed tensor in this process's own memory."""
    return torch.zeros(shape, dtype=dtype)


def allocate(layout: Any, *lead: int, zeros: Zeros = zeros) -> Any:
    """Zeroed tensors for a layout with leading dimensions ``lead``; ``zeros`` makes each of them.

    Memory comes from torch, hence aligned to 64 bytes: kernels may round differently on arrays
    that start elsewhere, which would spoil exact resume.
    """
    if isinstance(layout, dict):
        return {key: allocate(inner, *lead, zeros=zeros) for key, inner in layout.items()}
    shape, dtype = layout
    return zeros((*lead, *shape), dtype)


def row_bytes(layout: Any) -> int:
    """Bytes of one entry of a layout."""
    if isinstance(layout, dict):
        return sum(row_bytes(inner) for inner in layout.values())
    shape, dtype = layout
    size: int = math.prod(shape) * dtype.itemsize
    return size


def transition_bytes(spec: Spec) -> int:
    """Bytes of one stored transition: observation, action, reward, two flags."""
    return row_bytes(observation_layout(spec.observation)) + row_bytes(action_layout(spec.action))


def as_numpy(tree: Any) -> Any:
    """NumPy views of a tree of CPU tensors."""
    if isinstance(tree, dict):
        return {key: as_numpy(value) for key, value in tree.items()}
    return tree.numpy()


def untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory before they are written; see `allocate` for their alignment."""
    return torch.from_numpy(np.zeros(shape, torch.empty(0, dtype=dtype).numpy().dtype))


def on_disk(folder: Path) -> Zeros:
    """Makes zeros in files of ``folder`` that vanish with the process, mapped into memory.

    The operating system keeps in RAM what is used often, and needs none for the rest. Space is
    reserved at once, so that a disk that fills up later cannot end the run.
    """

    def zeros_in_file(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        size = max(1, math.prod(shape) * kind.itemsize)
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise ResourceError(
                f"memory.disk: {size / 2**30:.2f} GiB cannot be put into {folder}: "
                f"{error.strerror or error}.",
                "Choose a folder on a disk with room and permission to write, or lower "
                "memory.capacity.",
            ) from error
        array = np.frombuffer(mapped, kind, math.prod(shape)).reshape(shape)
        return torch.from_numpy(array)

    return zeros_in_file


def assign(target: Any, index: Any, source: Any) -> None:
    """``target[index] = source``, leaf by leaf."""
    if isinstance(target, dict):
        for key, value in target.items():
            assign(value, index, source[key])
    else:
        target[index] = source


def assigner(tree: Any) -> Callable[[Any, Any, Any], None]:
    """What does as `assign` does, for trees of this form: acting assigns in every step."""
    return assign if isinstance(tree, dict) else setitem


def named_leaves(tree: Any, prefix: str) -> dict[str, Any]:
    """Leaves of a tree under flat names ``prefix`` or ``prefix.key``."""
    return {f"{prefix}.{path}" if path else prefix: leaf for path, leaf in leaves(tree)}
