"""Which settings of a run may change when it is resumed, and a record of those that did."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from coach.core.errors import SettingError
from coach.core.registry import entries
from coach.runners.trust import command, same_reference

_ENVIRONMENT = "what the run has learned and stored belongs to its environment"
_STORED = "what is stored already was laid out and counted with it"
_WEIGHTS = "the weights have its shape"
#: Settings that cannot change, by the beginning of their key, and why.
_FIXED = {
    "environment": _ENVIRONMENT,
    "run.seed": "every random stream of the run began with it",
    "run.envs": "each environment has an unfinished episode and stored steps of its own",
    "agent.type": "the weights are those of another agent",
    "memory": _STORED,
}
#: Settings that can change although `_FIXED` names what they belong to.
_FREE = (
    "environment.evaluation_kwargs",
    "memory.batch_size",
    "memory.updates_per_step",
    "memory.epochs",
    "memory.disk",
    "memory.sampler",
)
#: Settings of optimisers that decide which numbers they keep for each weight.
_SLOTS = ("type", "centered", "momentum")
#: A mapping with one of these keys describes a network.
_NETWORK = ("heads", "embedder", "embedders", "middleware")


@dataclass(frozen=True)
class Change:
    """A setting that has changed.

    Args:
        key: its path.
        before: its value so far; ``None`` where there was none.
        after: its new value.
    """

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key} {_short(self.before)} -> {_short(self.after)}"


def changes_between(
    before: Mapping[str, Any], after: Mapping[str, Any], given: Mapping[str, Any]
) -> list[Change]:
    """Settings that differ.

    Args:
        before: all settings of the run so far.
        after: all settings from now on, defaults included.
        given: the settings that ``after`` was made from. What is in neither of the other two is a
            default that a newer version has added, and no change.
    """
    old, new, asked = flat(before), flat(after), flat(given)
    keys = [key for key in new if key in old or key in asked]
    keys += [key for key in old if key not in new]
    found = [Change(key, old.get(key), new.get(key)) for key in keys]
    return [one for one in found if _plain(one.before) != _plain(one.after)]


def likely_changes(before: Mapping[str, Any], given: Mapping[str, Any]) -> list[Change]:
    """Settings that were given and differ, before defaults are filled in."""
    old = flat(before)
    found = []
    for key, value in flat(_with_types(given, before)).items():
        if value is not None and key in old and _plain(old[key]) != _plain(value):
            found.append(Change(key, old[key], value))
    return found


def refuse_fixed(changes: Iterable[Change], before: Mapping[str, Any], folder: Path) -> None:
    """Stop where a setting has changed that the run cannot change any more.

    Args:
        changes: see `changes_between`.
        before: all settings of the run so far.
        folder: of the run.

    Raises:
        SettingError: naming the first such setting, why it is fixed, and what to do.
    """
    for change in changes:
        reason = _reason(change, before)
        if reason:
            preset = folder / "preset.yaml"
            anew = f"{change.key}={_yaml(change.after)}"
            raise SettingError(
                change.key,
                f"it is {_short(change.before)} in the run and cannot become "
                f"{_short(change.after)}: {reason}",
                "Leave it as it is, or train anew: "
                f"{command('coach', 'train', preset, '--set', anew)}",
            )


def dated(changes: Iterable[Change], env_steps: int) -> list[dict[str, Any]]:
    """Changes as entries for run.json."""
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    return [
        {
            "time": time,
            "env_steps": env_steps,
            "key": change.key,
            "before": change.before,
            "after": change.after,
        }
        for change in changes
    ]


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by key path; lists, and mappings without entries, are values."""
    if not isinstance(settings, Mapping) or (prefix and not settings):
        return {prefix: settings}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _reason(change: Change, before: Mapping[str, Any]) -> str:
    """Why a setting cannot change; empty where it can."""
    key = change.key
    if same_reference(change.before, change.after):  # the same class, in a file that was moved
        return ""
    section, _, last = key.rpartition(".")
    if _within(key, _FREE):
        what = "what the sampler keeps belongs to its type"
        return what if key == "memory.sampler.type" else ""
    for beginning, reason in _FIXED.items():
        if _within(key, (beginning,)):
            return reason
    if key.startswith(("optimizer.", "optimizers.")):
        own = section.count(".") == key.startswith("optimizers.")  # not of a schedule in it
        fixed = own and last in _SLOTS and bool(change.before) != bool(change.after)
        fixed = fixed or (own and last == "type")
        return "what the optimiser keeps for each weight depends on it" if fixed else ""
    if key == "run.fragment_length" and before["memory"]["type"] != "replay":
        return "unfinished pieces of experience are made of fragments of that length"
    if key.startswith("agent."):
        if _in_network(key, before):
            return _WEIGHTS
        if last == "type" and not _is_schedule(change):
            return "what the part keeps belongs to its type"
    return ""


def _within(key: str, beginnings: Iterable[str]) -> bool:
    return any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in beginnings)


def _in_network(key: str, settings: Mapping[str, Any]) -> bool:
    node: Any = settings
    for name in key.split("."):
        if not isinstance(node, Mapping):
            return False
        if any(part in node for part in _NETWORK):
            return True
        node = node.get(name)
    return False


def _is_schedule(change: Change) -> bool:
    known = {entry.name for entry in entries("schedule")}
    return all(value is None or value in known for value in (change.before, change.after))


def _with_types(given: Any, before: Any) -> Any:
    """A part that is given by its bare name, as the mapping that the run has for it."""
    if isinstance(given, str) and isinstance(before, Mapping) and "type" in before:
        return {"type": given}
    if isinstance(given, Mapping) and isinstance(before, Mapping):
        return {name: _with_types(value, before.get(name)) for name, value in given.items()}
    return given


def _plain(value: Any) -> Any:
    """A value as JSON and YAML would give it back; numbers that are equal are equal."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)  # YAML takes 1e-4 for a text
        except ValueError:
            return value
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return str(value)


def _short(value: Any) -> str:
    text = _yaml(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
