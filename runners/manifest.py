"""What a checkpoint's manifest may hold: nothing in it leads out of the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from coach.core.errors import CheckpointError
from coach.runners.seals import read_sealed
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_Sum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Position = Annotated[int, Field(ge=0)]
_STRICT = ConfigDict(strict=True)

M = TypeVar("M", bound=BaseModel)


class FileRecord(BaseModel):
    """Size and checksum of a file."""

    model_config = _STRICT
    bytes: Annotated[int, Field(ge=0)]
    sha256: _Sum


class ChunkRecord(FileRecord):
    """A file of stored rows, and the position of every stripe that they reach to."""

    file: Annotated[str, Field(pattern=r"^rows-\d+-\d+(-[0-9a-f]+)?\.safetensors$")]
    reached: list[_Position]


class Manifest(BaseModel):
    """All entries of a manifest."""

    model_config = _STRICT
    format: int
    env_steps: _Position
    workers: Annotated[int, Field(ge=1)] = 1
    files: dict[Literal["tensors.safetensors", "state.json"], FileRecord]
    journal: list[ChunkRecord]
    saved: list[_Position]
    journals: dict[Annotated[str, Field(pattern=r"^replay-worker-\d+$")], list[ChunkRecord]] = {}


class PolicyRecord(FileRecord):
    """The file of the kept weights."""

    name: Annotated[str, Field(pattern=r"^agent-[0-9a-f]{16}\.safetensors$")]


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a checkpoint's folder.

    Raises:
        CheckpointError: missing, damaged, or not of the form that `Manifest` says.
    """
    path = checkpoint / "manifest.json"
    values = read_sealed(path)
    checked = _checked(Manifest, values, path)
    if len(checked.files) != 2:
        raise CheckpointError(f"{path} is damaged: a file is missing from it.")
    return checked.model_dump()


def checked_chunks(values: Any, path: Path) -> list[dict[str, Any]]:
    """Records of chunks that have come from a file.

    Raises:
        CheckpointError: they are not of the form that `ChunkRecord` says.
    """
    if not isinstance(values, list):
        raise CheckpointError(f"{path} is damaged: its chunks are no list.")
    return [_checked(ChunkRecord, value, path).model_dump() for value in values]


def checked_policy(value: Any, path: Path) -> dict[str, Any]:
    """The record of a kept policy's file.

    Raises:
        CheckpointError: it is not of the form that `PolicyRecord` says.
    """
    return _checked(PolicyRecord, value, path).model_dump()


def _checked(model: type[M], value: Any, path: Path) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise CheckpointError(
            f"{path} is damaged, or not from a run: {where}: {first['msg']}."
        ) from error
