"""Corners of finding parts: shadows, wrong kinds, decorators that look alike, listing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from coach.core import registry
from coach.core.errors import CoachError, SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from gymnasium import spaces

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
PLUGIN = '''
from coach.core.registry import register
from coach.core.exploration import Exploration


@register("exploration", "{name}")
class Mine(Exploration):
    """Explores like nobody else."""

    consumes = ("values",)
'''


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """What a test registers does not outlive it; Coach's own parts, once imported, do."""
    before = dict(registry._registered)
    yield
    ours = {k: cls for k, cls in registry._registered.items() if cls.__module__[:6] == "coach."}
    registry._registered.clear()
    registry._registered.update(before | ours)


def plugin(folder: Path, name: str, file: str = "mine.py") -> Path:
    path = folder / file
    path.write_text(PLUGIN.format(name=name))
    return path


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_listing_every_kind_imports_neither_torch_nor_gymnasium() -> None:
    code = (
        "import sys\n"
        "from coach.core.registry import KINDS, entries\n"
        "print(sum(len(entries(kind)) for kind in KINDS))\n"
        "assert not {'torch', 'gymnasium', 'numpy'} & set(sys.modules)\n"
    )
    assert int(python(code)) >= 30


def test_finding_a_part_imports_its_file_alone() -> None:
    code = (
        "import sys\n"
        "from coach.core.registry import find\n"
        "find('exploration', 'greedy')\n"
        "found = sorted(m for m in sys.modules if m.startswith('coach.explorations.'))\n"
        "print(*found)\n"
    )
    assert python(code) == "coach.explorations.greedy"


def test_a_plugin_cannot_take_the_name_of_a_part_that_is_not_imported_yet(tmp_path: Path) -> None:
    """Otherwise the same name would mean different classes, depending on what came first."""
    code = (
        "import sys\n"
        "from coach.core.errors import CoachError\n"
        "from coach.core.registry import find, load_plugin\n"
        "try:\n"
        "    load_plugin(sys.argv[1])\n"
        "    print(find('exploration', 'boltzmann').__module__)\n"
        "except CoachError as error:\n"
        "    print(error)\n"
    )
    told = python(code, str(plugin(tmp_path, "boltzmann")))
    assert "Two classes claim the exploration 'boltzmann'" in told
    assert "coach.explorations.boltzmann" in told


def test_two_plugins_of_one_name_clash(tmp_path: Path) -> None:
    registry.load_plugin(str(plugin(tmp_path, "twice")))
    with pytest.raises(
        CoachError, match=r"Two classes claim the exploration 'twice'(.|\n)*another name"
    ):
        registry.load_plugin(str(plugin(tmp_path, "twice", "other.py")))


def test_a_plugin_that_clashed_can_be_mended_and_loaded_again(tmp_path: Path) -> None:
    path = plugin(tmp_path, "greedy")
    registry.find("exploration", "greedy")
    with pytest.raises(CoachError, match="Two classes claim"):
        registry.load_plugin(str(path))
    path.write_text(PLUGIN.format(name="greedier"))
    registry.load_plugin(str(path))
    assert registry.find("exploration", "greedier").__doc__ == "Explores like nobody else."


def test_paths_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    plugin(tmp_path, "from_home")
    assert registry.find("exploration", "~/mine.py:Mine").__name__ == "Mine"


def test_a_reference_to_another_kind_of_part_is_refused() -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", "coach.explorations.greedy:Greedy", "agent", spec=SPEC)
    assert raised.value.key.startswith("agent")
    with pytest.raises(SettingError):
        build_part("agent", "collections:OrderedDict", "agent", spec=SPEC)


def test_a_reference_without_its_module_names_the_setting() -> None:
    with pytest.raises(CoachError, match="no_such_module") as raised:
        build_part("agent", "no_such_module:Agent", "agent", spec=SPEC)
    assert "agent.type" in str(raised.value)


def test_parts_of_installed_packages_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, "from_package", "packaged_explorations.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("mine", "packaged_explorations", "coach.plugins")
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [point] * (group == "coach.plugins")
    )
    registry.load_entry_points.cache_clear()
    try:
        assert registry.find("exploration", "from_package").__name__ == "Mine"
        listed = {entry.name: entry for entry in registry.entries("exploration")}
        assert listed["from_package"].summary == "Explores like nobody else."
        assert listed["from_package"].module == "packaged_explorations"
    finally:
        registry.load_entry_points.cache_clear()


def test_an_installed_package_that_is_broken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("shaky", "no_such_package.agents", "coach.plugins")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry.load_entry_points.cache_clear()
    try:
        with pytest.raises(
            CoachError, match=r"'shaky' \(no_such_package\.agents\)(.|\n)*uninstall"
        ):
            registry.find("exploration", "not_ours")
        assert registry.find("exploration", "greedy").__name__ == "Greedy"
    finally:
        registry.load_entry_points.cache_clear()


def test_a_name_that_is_nothing_like_any_lists_them_all() -> None:
    with pytest.raises(SettingError) as raised:
        registry.find("sampler", "zzzzzz", "memory.sampler.type")
    assert "Known: balanced, episodic, prioritized, rank, uniform." in str(raised.value)
    assert "coach list samplers" in str(raised.value)
    assert raised.value.key == "memory.sampler.type"


@pytest.mark.parametrize(("kind", "word"), [("memory", "memories"), ("agent", "agents")])
def test_plurals(kind: str, word: str) -> None:
    assert registry.plural(kind) == word
