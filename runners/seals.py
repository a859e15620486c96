"""Files of a run folder that are checked before they are believed: sealed JSON, bounded sizes.

A sealed file holds a checksum of the rest of it. The checksum finds damage, not malice: whoever can
write the file can seal it. So sizes, types and paths are checked as well.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml
from coach.core.errors import CheckpointError
from coach.runners.storage import read_bounded, to_json

#: The format of sealed files that this version writes and reads. Since format 2, bounded actions
#: are in [-1, 1] in memories and policies.
FORMAT = 2
#: Most bytes of a manifest, of run.json and the like.
MOST_JSON_BYTES = 64 * 2**20
#: Most bytes of settings as YAML, and most values in them after aliases have been filled in.
MOST_YAML_BYTES, MOST_YAML_VALUES = 256 * 2**10, 20_000
_MOST_DEPTH = 100


class OtherVersionError(CheckpointError):
    """Written by a version whose files this one does not read."""


def too_old(path: Path) -> OtherVersionError:
    """The error for a file of an earlier version.

    Its weights and stored actions would be taken for something else, in silence.
    """
    return OtherVersionError(
        f"{path} was written by an earlier version, whose policies and stored actions are in the "
        "environment's units.",
        "Train the preset anew, or use the version that wrote it (run.json names it).",
    )


def parse_json(data: bytes, path: Path) -> Any:
    """The value of JSON bytes.

    Raises:
        CheckpointError: they are no JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it cannot be read as JSON") from error


def seal(values: dict[str, Any]) -> bytes:
    """Values as JSON bytes, with a checksum of themselves as the last entry."""
    return to_json({**values, "seal": hashlib.sha256(to_json(values)).hexdigest()})


def unsealed(values: Any, path: Path) -> dict[str, Any]:
    """The values in a sealed file, which has been parsed already.

    Raises:
        CheckpointError: the checksum does not match.
        OtherVersionError: another version has written it.
    """
    if not isinstance(values, dict) or not isinstance(values.get("seal"), str):
        raise CheckpointError(f"{path} is damaged: it has no checksum")
    rest = {name: value for name, value in values.items() if name != "seal"}
    version = rest.get("format", 0)
    if isinstance(version, int) and version > FORMAT:
        raise OtherVersionError(
            f"{path} was written by a newer version (format {version}; this one knows {FORMAT}).",
            "Run: pip install --upgrade coach-rl",
        )
    if hashlib.sha256(to_json(rest)).hexdigest() != values["seal"]:
        raise CheckpointError(f"{path} is damaged: its checksum does not match")
    if version != FORMAT:
        raise too_old(path)
    return rest


def read_sealed(path: Path) -> dict[str, Any]:
    """The values of a file that `seal` has made.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is damaged, or too large.
        OtherVersionError: another version has written it.
    """
    return unsealed(parse_json(read_bounded(path, MOST_JSON_BYTES), path), path)


def parse_settings(data: bytes, path: Path) -> dict[str, Any]:
    """Settings from YAML bytes that somebody else may have written.

    Aliases are counted as often as they are used, before anything is made of them: a few hundred
    bytes can stand for billions of values.

    Raises:
        CheckpointError: no YAML mapping, too large, or nested too deeply.
    """
    try:
        text = data.decode()
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _count(node, {})
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: it cannot be read as settings") from error
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise CheckpointError(f"{path} is damaged: it holds no settings")
    return settings


def _count(node: yaml.Node, known: dict[int, int], depth: int = 0) -> int:
    """Values below a node, every alias counted in full."""
    if depth > _MOST_DEPTH:
        raise ValueError("nested too deeply")
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MOST_YAML_VALUES + 1  # what contains itself never ends
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [child for pair in node.value for child in pair]
    total = 1 + sum(_count(child, known, depth + 1) for child in inner)
    if total > MOST_YAML_VALUES:
        raise ValueError("too many values")
    known[id(node)] = total
    return total


def refuse_outside(folder: Path) -> None:
    """Refuse a run folder in which a link leads out of it.

    Raises:
        CheckpointError: naming the link.
    """
    root = folder.resolve()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise CheckpointError(
                    f"{path} is a link that leads out of the run's folder.",
                    "Replace it by what it points to.",
                )
