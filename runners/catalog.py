"""What there is, in tables: the lists and descriptions of the command line."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml
from coach.core.errors import CoachError, near_name, nearest
from coach.core.hints import SECTIONS, elsewhere, section_class
from coach.core.registry import KINDS, entries, find, plural
from coach.runners.preset import preset_files
from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

_LISTED = ("preset", *KINDS)
_PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:\S+?(?=[),\s])")


def kind_of(word: str) -> str:
    """The kind that a word means, singular or plural.

    Raises:
        CoachError: there is no such kind.
    """
    for kind in _LISTED:
        if word in (kind, plural(kind)):
            return kind
    known = [*(plural(kind) for kind in _LISTED), *_LISTED]
    raise CoachError(
        f"There is no kind of part called '{word}'.",
        nearest(word, known) if near_name(word, known) else nearest("", known[: len(_LISTED)]),
    )


def section_of(word: str) -> str | None:
    """The group of settings that a word means: run, evaluation, target, environment or network."""
    return next((name for name in SECTIONS if word in (name, name.split(".")[-1])), None)


def print_section(console: Console, section: str, setting: str | None = None) -> None:
    """Print the settings of a section of presets, or one of them.

    Raises:
        CoachError: the section has no such setting.
    """
    cls = section_class(section)
    about, described = _docstring(cls)
    names = [name for name, *_ in _settings_rows(cls, described, "")]
    if setting is not None and setting not in names:
        raise CoachError(
            f"{section} has no setting '{setting}'.", elsewhere(setting) or nearest(setting, names)
        )
    console.print(Panel(Text(_flowing(about)), title=f"section {section}", title_align="left"))
    console.print(_settings_table(cls, described, setting))
    console.print(f"Defined in {cls.__module__}", style="dim", highlight=False)


def print_list(console: Console, kind: str | None) -> None:
    """Print the parts of one kind, or of all."""
    for one in [kind] if kind else _LISTED:
        table = Table(title=plural(one), title_justify="left", title_style="bold", box=None)
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("what it is")
        for name, summary in _rows(one):
            table.add_row(escape(name), Text(_plain(summary)))
        console.print(table)
        console.print()


def describe(console: Console, what: str, name: str | None) -> None:
    """Print what a person asks about: a part, a preset, a section, or all parts of a kind.

    Args:
        console: where to print.
        what: a kind of part, a section, or the name of a part or preset itself.
        name: of the part, or of one setting of the section.

    Raises:
        CoachError: nothing is known under these words.
    """
    section = section_of(what)
    if section is not None and (name is None or what not in KINDS or name not in _names(what)):
        print_section(console, section, name)
        return
    if name is not None:
        print_description(console, kind_of(what), name)
        return
    named = [kind for kind in _LISTED if what in _names(kind)]
    for kind in named:
        print_description(console, kind, what)
    if not named:
        kind = _kind_or_name(what)
        print_list(console, kind)
        console.print(f"One of them: coach describe {kind} NAME", highlight=False)


def _kind_or_name(word: str) -> str:
    try:
        return kind_of(word)
    except CoachError as error:
        known = [*(name for kind in _LISTED for name in _names(kind)), *_LISTED]
        sections = [name.split(".")[-1] for name in SECTIONS]
        if near_name(word, [*known, *sections]) is None:
            raise
        raise CoachError(error.problem, nearest(word, [*known, *sections])) from None


def _names(kind: str) -> list[str]:
    return list(preset_files()) if kind == "preset" else [entry.name for entry in entries(kind)]


def print_description(console: Console, kind: str, name: str) -> None:
    """Print the purpose, the settings and the source of a part, or a preset's text."""
    if kind == "preset":
        files = preset_files()
        if name not in files:
            raise CoachError(f"There is no preset called '{name}'.", nearest(name, files))
        console.print(
            Syntax(files[name].read_text(encoding="utf-8"), "yaml", background_color="default")
        )
        console.print(Text.assemble("\nTrain it: ", (shlex.join(["coach", "train", name]), "bold")))
        return
    cls = find(kind, name)
    module = inspect.getmodule(cls)
    about, described = _docstring(cls)
    parts: list[Any] = [Text(_flowing(about))]
    source = f"{(module.__doc__ or '') if module else ''}\n{cls.__doc__ or ''}"
    if kind == "agent" and module is not None and module.__doc__:
        parts += [Text(), Text(_flowing(inspect.cleandoc(module.__doc__)), style="dim")]
    papers = list(dict.fromkeys(_PAPER.findall(source)))
    if papers:
        parts += [Text(), Text("Source: " + ", ".join(papers), style="green")]
    console.print(Panel(Group(*parts), title=escape(f"{kind} {name}"), title_align="left"))
    table = _settings_table(cls, described)
    console.print(table if table.row_count else "It takes no settings.")
    if module is not None and module.__file__:
        console.print(f"Defined in {cls.__module__}", style="dim", highlight=False)


def _flowing(text: str) -> str:
    """Paragraphs without the line breaks of the source; lists and indented lines keep theirs."""
    lines: list[str] = []
    for line in text.splitlines():
        begins = not line or line[0].isspace() or line.startswith("- ")
        if lines and lines[-1] and not lines[-1][0].isspace() and not begins:
            lines[-1] += f" {line}"
        else:
            lines.append(re.sub(r"(?<=\S) {4,}", "   ", line))  # columns of equations, closer
    return "\n".join(lines)


def _rows(kind: str) -> list[tuple[str, str]]:
    if kind != "preset":
        return [(entry.name, entry.summary) for entry in entries(kind)]
    rows = []
    for name, path in preset_files().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        rows.append((name, str((yaml.safe_load(first) or {}).get("about", ""))))
    return rows


def _plain(text: str) -> str:
    return text.replace("``", "")


def _settings_table(cls: type, described: dict[str, str], only: str | None = None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column, style in (("setting", "cyan"), ("type", "magenta"), ("default", ""), ("", "")):
        table.add_column(column, style=style)
    for name, kind, default, words in _settings_rows(cls, described, ""):
        if only in (None, name):
            table.add_row(name, Text(kind), Text(default), Text(words))
    return table


def _settings_rows(
    cls: type, described: dict[str, str], prefix: str
) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and words of each setting.

    Those of a group of settings, such as dqn's munchausen, come behind it.
    """
    from coach.core.schema import groups_in, name_of, parameters  # with pydantic; lists need none

    for name, (annotation, default) in parameters(cls).items():
        groups = groups_in(annotation)
        kind = "settings | null" if groups else name_of(annotation)
        shown = "required" if default is ... else _shown(default)
        yield f"{prefix}{name}", kind, shown, described.get(name, "")
        for group in groups:
            yield from _settings_rows(group, _docstring(group)[1], f"{prefix}{name}.")


def _shown(default: Any) -> str:
    if default is None:
        return "null"
    if hasattr(type(default), "registered_name"):
        inner = ", ".join(f"{key}: {value}" for key, value in vars(default).items())
        return f"{{{inner}}}"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _docstring(cls: type) -> tuple[str, dict[str, str]]:
    text = _plain(inspect.cleandoc(cls.__doc__ or ""))
    about, _, rest = text.partition("\nArgs:\n")
    described: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name, words = match[1].rstrip("_"), match[2]
            described[name] = words
        elif line.startswith("        ") and name:
            described[name] += " " + line.strip()
        elif line.strip():
            break
    return about.strip(), described
