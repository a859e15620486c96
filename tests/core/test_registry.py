"""Finding parts by name, file, module and entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from coach.core import registry
from coach.core.errors import CoachError, SettingError

HEAD = '''
from coach.core.registry import register
from coach.architectures.heads.q import Q

@register("head", "{name}")
class Mine(Q):
    """A head of mine."""
'''


def test_names_are_found_without_importing_the_rest() -> None:
    assert registry.find("agent", "dqn").__name__ == "DQN"
    assert registry.find("schedule", "linear").__name__ == "Linear"


def test_every_listed_part_can_be_found_and_says_what_it_is() -> None:
    for kind in registry.KINDS:
        listed = registry.entries(kind)
        assert listed
        for entry in listed:
            assert entry.summary, f"{kind} {entry.name} has no docstring"
            registry.find(kind, entry.name)


def test_unknown_names_say_what_is_near() -> None:
    with pytest.raises(SettingError, match="Did you mean 'ppo'"):
        registry.find("agent", "pppo", "agent.type")


def test_plugin_file_registers_and_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HEAD.format(name="from_file"))
    registry.load_plugin(str(path))
    assert registry.find("head", "from_file").__name__ == "Mine"
    listed = {entry.name: entry.summary for entry in registry.entries("head")}
    assert listed["from_file"] == "A head of mine."


def test_two_plugin_files_of_one_name_live_side_by_side(tmp_path: Path) -> None:
    for number in ("one", "two"):
        (tmp_path / number).mkdir()
        path = tmp_path / number / "agent.py"
        path.write_text(HEAD.format(name=f"side_{number}"))
        registry.load_plugin(str(path))
    assert registry.find("head", "side_one") is not registry.find("head", "side_two")


def test_a_plugin_is_imported_once(tmp_path: Path) -> None:
    path = tmp_path / "once.py"
    path.write_text(HEAD.format(name="once"))
    assert registry.load_plugin(str(path)) is registry.load_plugin(str(path))


def test_classes_by_file_and_by_module(tmp_path: Path) -> None:
    path = tmp_path / "direct.py"
    path.write_text("from coach.architectures.head import Head\nclass Thing(Head):\n    pass\n")
    assert registry.find("head", f"{path}:Thing").__name__ == "Thing"
    assert registry.find("head", "coach.architectures.heads.q:Q").__name__ == "Q"
    with pytest.raises(SettingError, match="Did you mean 'Thing'"):
        registry.find("head", f"{path}:Thin")


def test_a_clash_names_both_classes(tmp_path: Path) -> None:
    path = tmp_path / "clash.py"
    path.write_text(HEAD.format(name="value"))
    registry.find("head", "value")
    with pytest.raises(CoachError, match=r"coach\.architectures\.heads\.value\.Value.*Mine"):
        registry.load_plugin(str(path))


def test_a_plugin_that_fails_to_import_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(CoachError, match="nothing_of_that_name"):
        registry.load_plugin(str(path))
    with pytest.raises(CoachError, match="does not exist"):
        registry.load_plugin(str(tmp_path / "absent.py"))


def test_installed_packages_offer_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "offered_parts.py").write_text(HEAD.format(name="offered"))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("mine", "offered_parts", "coach.plugins")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry.load_entry_points.cache_clear()
    assert registry.find("head", "offered").__name__ == "Mine"
    registry.load_entry_points.cache_clear()


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(CoachError, match="Did you mean 'agent'"):
        registry.register("agnt", "x")
