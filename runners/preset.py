"""Presets: YAML files found by name or path, overridden from the command line, checked in full."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from coach.core.errors import CoachError, SettingError, near_name, nearest
from coach.core.hints import elsewhere
from coach.core.registry import folder, located
from coach.core.schema import as_numbers

SECTIONS = (
    "about",
    "environment",
    "agent",
    "memory",
    "optimizer",
    "optimizers",
    "run",
    "evaluation",
    "target",
)
REQUIRED = ("environment", "agent", "memory", "run")


def preset_files() -> dict[str, Path]:
    """The presets that come with Coach, by name."""
    return {
        path.stem: path
        for place in folder("coach.presets")
        for path in sorted(place.glob("*.yaml"))
    }


def load(name_or_path: str, overrides: Iterable[str] = ()) -> tuple[str, dict[str, Any]]:
    """Read a preset and apply ``key.path=value`` overrides.

    Returns:
        The preset's name and its plain settings.

    Raises:
        CoachError: no such preset or file, or it is no valid YAML.
        SettingError: an unknown section, or an override that does not fit.
    """
    path = _find(name_or_path)
    settings = read_yaml(_text(path), str(path))
    if not isinstance(settings, dict):
        raise CoachError(
            f"{path} is no preset: expected sections such as environment and agent.",
            "docs/presets.md shows a complete one.",
        )
    settings = override(settings, overrides)
    for section in settings:
        if section not in SECTIONS:
            other = elsewhere(str(section))
            close = near_name(str(section), SECTIONS, cutoff=0.8)
            raise SettingError(
                str(section),
                f"unknown section '{section}'",
                other if other and close is None else nearest(str(section), SECTIONS),
            )
    for section in REQUIRED:
        if settings.get(section) is None:
            raise SettingError(section, "this section is required", f"Add `{section}: ...`.")
    return path.stem, _located(settings, path.parent)


def _located(value: Any, folder: Path) -> Any:
    """Settings whose references to files beside the preset lead there from everywhere."""
    if isinstance(value, str):
        return located(value, folder)
    if isinstance(value, dict):
        return {_located(key, folder): _located(inner, folder) for key, inner in value.items()}
    return [_located(inner, folder) for inner in value] if isinstance(value, list) else value


@contextmanager
def blaming(name_or_path: str, overrides: Iterable[str] = ()) -> Iterator[None]:
    """Let errors about settings name the preset's file, and the line where the setting stands.

    Args:
        name_or_path: of the preset.
        overrides: what was changed from outside, for which no line of the file is to blame.
    """
    try:
        yield
    except SettingError as error:
        path = _find(name_or_path)
        changed = [text.partition("=")[0].strip() for text in overrides]
        if any(error.key == key or error.key.startswith(f"{key}.") for key in changed):
            raise error.within(path.name) from error
        raise error.within(f"{path.name}{_line_of(error.key, path)}") from error


def read_yaml(text: str, file: str) -> Any:
    """Plain YAML; a key that is written twice is an error, not a change of the first value.

    Args:
        text: what to read.
        file: named in errors.

    Raises:
        CoachError: no valid YAML, or a key that stands twice in one mapping.
    """
    try:
        return yaml.load(text, _Loader)
    except _RepeatedKeyError as error:
        raise CoachError(
            f"{_at(file, error.problem_mark)}: {error.problem}", error.note or ""
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise CoachError(
            f"{_at(file, mark)}: this is no valid YAML: {getattr(error, 'problem', error)}",
            "Check indentation, colons and brackets.",
        ) from error


class _RepeatedKeyError(yaml.MarkedYAMLError):
    """A key that stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """Plain YAML in which no key stands twice."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                before = first.setdefault((key.tag, key.value), key.start_mark)
                if before is not key.start_mark:
                    raise _RepeatedKeyError(
                        problem=f"the key '{key.value}' stands here for the second time; it stands "
                        f"in line {before.line + 1}, column {before.column + 1} too",
                        problem_mark=key.start_mark,
                        note="Remove one of the two.",
                    )
        return node


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CoachError(f"{path} cannot be read: {error}") from error


def _at(file: str, mark: yaml.Mark | None) -> str:
    return file if mark is None else f"{file}:{mark.line + 1}:{mark.column + 1}"


def _line_of(key: str, path: Path) -> str:
    """``:line:column`` of a setting, or of the innermost mapping that it belongs to."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # which has its own message
        return ""
    mark, rest = None, key
    while rest and isinstance(node, yaml.MappingNode | yaml.SequenceNode):
        step = _step(node, rest)
        if step is None:
            break
        mark, node, rest = step
    return _at("", mark)


def _step(node: yaml.CollectionNode, rest: str) -> tuple[yaml.Mark, yaml.Node, str] | None:
    """Where the first name of a key path stands in a node, what it holds, and the path's rest."""
    if isinstance(node, yaml.SequenceNode):
        match = re.match(r"\[(\d+)\]\.?", rest)
        if match is None or int(match[1]) >= len(node.value):
            return None
        inner = node.value[int(match[1])]
        return inner.start_mark, inner, rest[match.end() :]
    for name, inner in node.value:
        after = rest[len(name.value) :]
        if rest.startswith(name.value) and (not after or after[0] in ".["):
            return name.start_mark, inner, after.removeprefix(".")
    return None


def override(settings: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``settings`` with ``key.path=value`` applied.

    Values are read as YAML; ``1e-4`` is a number, and ``(0.9, 0.99)`` a list.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(settings))
    for text in overrides:
        path, sign, value = text.partition("=")
        if not sign or not path.strip():
            raise SettingError(
                "--set", f"'{text}' is no key.path=value", "Write --set agent.double=false."
            )
        # Tuples are lists in YAML, whichever way somebody writes them.
        tuple_ = re.fullmatch(r"\s*\((.*?),?\s*\)\s*", value)
        try:
            parsed = as_numbers(yaml.load(f"[{tuple_[1]}]" if tuple_ else value, _Loader))
        except _RepeatedKeyError as error:
            raise SettingError(path, f"in '{value}' {error.problem}", error.note or "") from error
        except yaml.YAMLError as error:
            raise SettingError(path, f"'{value}' is no valid YAML value") from error
        *parents, last = path.strip().split(".")
        node = changed
        for depth, name in enumerate(parents):
            inner = node.get(name)
            if inner is None:
                inner = {}
            elif isinstance(inner, str) and depth:
                inner = {"type": inner}  # a part given by its bare name gets settings
            elif not isinstance(inner, dict):
                raise SettingError(
                    path, f"'{'.'.join(parents[: depth + 1])}' is {inner!r}, not a mapping"
                )
            node[name] = inner
            node = inner
        current = node.get(last)
        if isinstance(current, dict) and isinstance(parsed, str):
            parsed = {"type": parsed}
        node[last] = parsed
    return changed


def dump(settings: Mapping[str, Any]) -> str:
    """Settings as YAML, sections in their usual order."""
    ordered = {name: settings[name] for name in SECTIONS if settings.get(name) is not None}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=100)


def _find(name_or_path: str) -> Path:
    known = preset_files()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or "/" in name_or_path:
        raise CoachError(
            f"There is no preset file {name_or_path}.",
            "Check the path, or see `coach list presets`.",
        )
    raise CoachError(
        f"There is no preset called '{name_or_path}'.",
        f"{nearest(name_or_path, known)} `coach list presets` shows them all; a file needs its "
        ".yaml ending.",
    )
