"""Finding parts by name: one decorator registers, nothing else has to be edited.

A name is looked up among what is imported already, then as a file of that name in the kind's
folder, then by reading (not importing) the folder's other files, then among installed packages
that offer the entry-point group ``coach.plugins``, and last as ``file.py:Class`` or
``package.module:Class``. Listing reads source text only, so it never imports torch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from coach.core.errors import CoachError, InterruptedRunError, SettingError, nearest

T = TypeVar("T", bound=type)

#: Every kind of part and the package whose files register it.
KINDS = {
    "agent": "coach.agents",
    "embedder": "coach.architectures.embedders",
    "middleware": "coach.architectures.middlewares",
    "head": "coach.architectures.heads",
    "exploration": "coach.explorations",
    "schedule": "coach.functional",
    "memory": "coach.memories",
    "sampler": "coach.memories.samplers",
    "optimizer": "coach.optimizers",
    "environment": "coach.environments",
}


def plural(kind: str) -> str:
    """The word for several parts of a kind, as `coach list` takes it."""
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


_registered: dict[tuple[str, str], type] = {}
#: Files of plugins that have been imported, and the folder that the process began in.
_files: list[Path] = []
_STARTED_IN: list[Path] = []
with suppress(OSError):
    _STARTED_IN.append(Path.cwd())


@dataclass(frozen=True)
class Entry:
    """One registered part, as found in source text."""

    kind: str
    name: str
    summary: str
    module: str
    cls: str


def register(kind: str, name: str) -> Callable[[T], T]:
    """Make a class known as ``name`` among the parts of ``kind``.

    Raises:
        CoachError: unknown kind, or the name is taken by another class.
    """
    if kind not in KINDS:
        raise CoachError(f"There is no kind of part called '{kind}'.", nearest(kind, KINDS))

    def add(cls: T) -> T:
        mine = f"{cls.__module__}.{cls.__qualname__}"
        other = _holder(kind, name)
        if other and other != mine:
            raise CoachError(
                f"Two classes claim the {kind} '{name}': {other} and {mine}.",
                "Give one of them another name in @register(...).",
            )
        _registered[kind, name] = cls
        cls.registered_name = name  # type: ignore[attr-defined]
        return cls

    return add


def find(kind: str, name: str, key: str = "") -> type:
    """The class registered as ``name``; imports only the file that holds it.

    Args:
        kind: one of `KINDS`.
        name: registered name, ``file.py:Class`` or ``package.module:Class``.
        key: key path of the setting that names it, for the error.

    Raises:
        SettingError: nothing is known under that name; names the nearest one.
    """
    if (kind, name) in _registered:
        return _registered[kind, name]
    if ":" in name:
        return _from_reference(kind, name, key)
    for entry in _scan(KINDS[kind]):
        if (entry.kind, entry.name) == (kind, name):
            importlib.import_module(entry.module)
            return _registered[kind, name]
    load_entry_points()
    if (kind, name) in _registered:
        return _registered[kind, name]
    known = [entry.name for entry in entries(kind)]
    raise SettingError(
        key,
        f"there is no {kind} called '{name}'",
        f"{nearest(name, known)} `coach list {plural(kind)}` shows them all; your own come in "
        "with --plugin FILE.py.".strip(),
    )


def entries(kind: str) -> list[Entry]:
    """Every known part of a kind, sorted by name: ours from source text, plugins as imported."""
    found = {entry.name: entry for entry in _scan(KINDS[kind]) if entry.kind == kind}
    for (other, name), cls in _registered.items():
        if other == kind and name not in found:
            summary = (cls.__doc__ or "").strip().split("\n")[0]
            found[name] = Entry(kind, name, summary, cls.__module__, cls.__qualname__)
    return [found[name] for name in sorted(found)]


def load_plugin(reference: str) -> ModuleType:
    """Import a plugin given as a path to a Python file or as a module name.

    A module that is not installed is looked for among the plugins that are there already, and in
    the current folder.

    Raises:
        CoachError: no such file or module, or it fails to import.
    """
    path = _file_of(reference, _places())
    if path is None and reference.endswith(".py"):
        raise CoachError(
            f"The plugin file {reference} does not exist.",
            "Check --plugin; a relative path begins in the current folder, or beside the preset.",
        )
    try:
        if path is not None:
            return _import_file(path)
        return importlib.import_module(reference)
    except (CoachError, InterruptedRunError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit among them
        known = isinstance(error, ModuleNotFoundError) and error.name == reference.split(".")[0]
        raise CoachError(
            f"The plugin {reference} fails to import: {type(error).__name__}: {error}",
            f"Install the package, put {reference}.py beside the preset or into the current "
            f"folder, or give its path: --plugin PATH/{reference}.py."
            if known
            else f"Try `python {path or f'-m {reference}'}` to see where.",
        ) from error


def located(reference: str, folder: Path) -> str:
    """A reference to a class that leads to the same file from everywhere.

    Args:
        reference: ``file.py:Class`` or ``module:Class``; anything else stays as it is.
        folder: of the preset that it stands in, where files are looked for first.
    """
    module, colon, name = reference.rpartition(":")
    path = _file_of(module, [folder.absolute(), *_places()]) if colon and module else None
    return reference if path is None else f"{path}:{name}"


@cache
def load_entry_points() -> None:
    """Import what installed packages offer under the entry-point group ``coach.plugins``."""
    for point in entry_points(group="coach.plugins"):
        try:
            point.load()
        except Exception as error:
            raise CoachError(
                f"The installed plugin '{point.name}' ({point.value}) fails to import: {error}",
                "Repair or uninstall the package that brings it.",
            ) from error


def folder(package: str) -> list[Path]:
    """The directories behind a package of ours, without importing its modules."""
    spec = importlib.util.find_spec(package)
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


def _holder(kind: str, name: str) -> str:
    """Full name of the class that has a name already, imported or not."""
    cls = _registered.get((kind, name))
    if cls is not None:
        return f"{cls.__module__}.{cls.__qualname__}"
    ours = (e for e in _scan(KINDS[kind]) if (e.kind, e.name) == (kind, name))
    return next((f"{entry.module}.{entry.cls}" for entry in ours), "")


def _places() -> list[Path]:
    """Where files of plugins are looked for: beside those that are there, in the current folder."""
    places = [path.parent for path in _files]
    with suppress(OSError):  # the folder may be gone
        places.append(Path.cwd())
    return [*places, *_STARTED_IN]  # which an environment may have left


def _file_of(module: str, places: Iterable[Path]) -> Path | None:
    """The file of a plugin; nothing for a module that can be imported by its name."""
    if module.endswith(".py"):
        candidates = [place / Path(module).expanduser() for place in places]
    elif not module.isidentifier() or _importable(module):
        return None
    else:
        candidates = [place / f"{module}.py" for place in places]
    return next((path.resolve() for path in candidates if path.is_file()), None)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec, such as __main__
        return module in sys.modules


def _module_name(path: Path) -> str:
    """The name to import a file under: its own, if that leads to it and to nothing else."""
    importlib.invalidate_caches()
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(path.stem) if path.stem.isidentifier() else None
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path:
            return path.stem
    # The name depends on the path, so two plugins called agent.py do not shadow each other.
    return f"coach_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _import_file(path: Path) -> ModuleType:
    if str(path.parent) not in sys.path:  # for what it imports from beside it; others come first
        sys.path.append(str(path.parent))
    if path not in _files:
        _files.append(path)
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_reference(kind: str, reference: str, key: str) -> type:
    module_name, _, class_name = reference.rpartition(":")
    try:
        module = load_plugin(module_name)
    except CoachError as error:
        raise SettingError(key, error.problem, error.remedy) from error
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        classes = [name for name, member in vars(module).items() if isinstance(member, type)]
        raise SettingError(
            key, f"{module_name} has no class '{class_name}'", nearest(class_name, classes)
        )
    if kind != "environment" and getattr(cls, "kind", None) != kind:
        raise SettingError(
            key,
            f"{reference} is no {kind}",
            f"A {kind} derives from the class of that name; see docs/own-agent.md.",
        )
    return cls


@cache
def _scan(package: str) -> tuple[Entry, ...]:
    found = []
    for place in folder(package):
        for path in sorted(place.glob("*.py")):
            if not path.stem.startswith("_"):
                found += _entries_in(path, f"{package}.{path.stem}")
    return tuple(found)


def _entries_in(path: Path, module: str) -> list[Entry]:
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for call in node.decorator_list:
            match call:
                case ast.Call(
                    func=ast.Name(id="register"),
                    args=[ast.Constant(value=str(kind)), ast.Constant(value=str(name))],
                ):
                    summary = (ast.get_docstring(node) or "").split("\n")[0]
                    found.append(Entry(kind, name, summary, module, node.name))
    return found
