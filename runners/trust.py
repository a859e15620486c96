"""What a run folder would have us execute or touch, and whether the user has asked for that.

A run folder is data (invariant I12). Plugins, environments and parts that its settings name by
``module:Class`` or ``file.py:Class`` are code. They are imported where the run is the user's own
(`coach.runners.signatures`), where the user names them on the command line, or with ``--trust``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from coach.core.errors import CoachError
from coach.core.places import short
from coach.runners.signatures import can_sign

#: Sections that only hold text or checked numbers.
_INERT = ("about", "run", "evaluation", "target")


class UntrustedRunError(CoachError):
    """A run folder names code, or places outside of it, that the user has not asked for."""


@dataclass(frozen=True)
class Named:
    """Something in a run's settings that is executed or touched.

    Args:
        key: of the setting.
        text: its value.
        code: whether it is imported; otherwise it is a place outside of the run.
    """

    key: str
    text: str
    code: bool = True


def command(*words: object) -> str:
    """A command line that can be pasted into a shell; paths are `short`."""
    return shlex.join(short(word) if isinstance(word, Path) else str(word) for word in words)


def named_in(settings: Mapping[str, Any]) -> list[Named]:
    """References to code, and paths, in settings."""
    found: list[Named] = []
    for section, value in settings.items():
        if section not in _INERT:
            _search(section, value, found)
    return found


def flag(settings: Mapping[str, Any], plugins: Sequence[str]) -> list[str]:
    """What a command needs in addition, to use a run of one's own with these settings."""
    return ["--trust"] if (plugins or named_in(settings)) and not can_sign() else []


def require_trust(
    folder: Path,
    settings: Mapping[str, Any],
    recorded: Sequence[str],
    given: Sequence[str],
    asked: Mapping[str, Any],
    again: str,
) -> None:
    """Stop unless the user has named all that a run folder would have us execute or touch.

    Args:
        folder: of the run.
        settings: with what the user has changed.
        recorded: plugins that the run names.
        given: plugins that the user names.
        asked: settings that the user has given.
        again: the command to which ``--trust`` can be added.

    Raises:
        UntrustedRunError: naming what it is, and the command to use.
    """
    mine = {one.text for one in named_in(asked)}
    unasked = [one for one in named_in(settings) if one.text not in mine]
    names = {_name(plugin) for plugin in given}
    unasked = [one for one in unasked if not (one.code and _name(_module(one.text)) in names)]
    missing = [plugin for plugin in recorded if _name(plugin) not in names]
    code = [f"plugin {plugin}" for plugin in missing]
    code += [f"{one.key} {one.text}" for one in unasked if one.code]
    places = [f"{one.key} {one.text}" for one in unasked if not one.code]
    if not code and not places:
        return
    what = [f"would execute {_listed(code)}"] * bool(code)
    what += [f"would use places outside of it ({_listed(places)})"] * bool(places)
    plugins = "".join(f" --plugin {shlex.quote(PurePath(plugin).name)}" for plugin in missing)
    own = f"\nTo use files of your own: {again}{plugins}" if plugins else ""
    raise UntrustedRunError(
        f"The run in {folder} {' and '.join(what)}. Nothing of that has been done.",
        f"If you trust whoever made this run: {again} --trust{own}",
    )


def with_plugins(recorded: Iterable[str], given: Sequence[str]) -> list[str]:
    """A run's plugins, each replaced by a given one of the same name, and then the others given."""
    mine = {_name(plugin): plugin for plugin in given}
    kept = [mine.get(_name(plugin), plugin) for plugin in recorded]
    return list(dict.fromkeys([*kept, *given]))


def with_references(value: Any, given: Sequence[str]) -> Any:
    """Settings whose references ``file.py:Class`` lead to the given plugins of the same name."""
    if isinstance(value, Mapping):
        return {_moved(key, given): with_references(inner, given) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_references(inner, given) for inner in value]
    return _moved(value, given)


def same_reference(one: Any, other: Any) -> bool:
    """Whether two values name the same class, in files of the same name."""
    if not (isinstance(one, str) and isinstance(other, str) and ":" in one and ":" in other):
        return False
    return _name(_module(one)) == _name(_module(other)) and _class(one) == _class(other)


def _moved(value: Any, given: Sequence[str]) -> Any:
    if not isinstance(value, str) or ":" not in value:
        return value
    for plugin in given:
        if plugin.endswith(".py") and _name(plugin) == _name(_module(value)):
            return f"{Path(plugin).expanduser().resolve()}:{_class(value)}"
    return value


def _search(key: str, value: Any, found: list[Named]) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _look_at(f"{key}.{name}", name, found)
            _search(f"{key}.{name}", inner, found)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _search(f"{key}[{number}]", inner, found)
    else:
        _look_at(key, value, found)


def _look_at(key: str, value: Any, found: list[Named]) -> None:
    if not isinstance(value, str):
        return
    if ":" in value:
        found.append(Named(key, value))
    elif key != "environment.id" and (value.startswith("~") or set("/\\") & set(value)):
        found.append(Named(key, value, code=False))


def _module(reference: str) -> str:
    return reference.rpartition(":")[0]


def _class(reference: str) -> str:
    return reference.rpartition(":")[2]


def _name(plugin: str) -> str:
    """What a plugin is called, be it a file or a module."""
    return PurePath(plugin).name.removesuffix(".py")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
