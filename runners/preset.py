"""Presets: YAML files found by name or path, overridden from the command line, checked in full."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from coach.core.errors import CoachError, SettingError, nearest
from coach.core.registry import folder

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
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CoachError(
            f"{path}{where}: this is no valid YAML: {getattr(error, 'problem', error)}",
            "Check indentation, colons and brackets.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CoachError(f"{path} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise CoachError(
            f"{path} is no preset: expected sections such as environment and agent.",
            "docs/presets.md shows a complete one.",
        )
    settings = override(settings, overrides)
    for section in settings:
        if section not in SECTIONS:
            raise SettingError(
                str(section), f"unknown section '{section}'", nearest(str(section), SECTIONS)
            )
    for section in REQUIRED:
        if settings.get(section) is None:
            raise SettingError(section, "this section is required", f"Add `{section}: ...`.")
    return path.stem, settings


@contextmanager
def blaming(name_or_path: str) -> Iterator[None]:
    """Let errors about settings name the preset's file."""
    try:
        yield
    except SettingError as error:
        raise error.within(_find(name_or_path).name) from error


def override(settings: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``settings`` with ``key.path=value`` applied; values are read as YAML."""
    changed: dict[str, Any] = copy.deepcopy(dict(settings))
    for text in overrides:
        path, sign, value = text.partition("=")
        if not sign or not path.strip():
            raise SettingError(
                "--set", f"'{text}' is no key.path=value", "Write --set agent.double=false."
            )
        try:
            parsed = yaml.safe_load(value)
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
