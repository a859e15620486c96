"""What is installed together fits together: pyproject.toml and constraints.txt agree."""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib")  # Python 3.11 and later

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {plain(name): version for name, version in pairs}


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_every_requirement_is_pinned_to_a_version_that_it_allows(extra: str) -> None:
    for text in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins()[plain(requirement.name)]), text


def test_no_pin_breaks_what_another_pinned_package_needs() -> None:
    """A package that needs an older version than is pinned would downgrade it on installation."""
    broken = [
        f"{found.metadata['Name']} {found.version} needs {text}, pinned is {pins()[name]}"
        for found in distributions()
        if pins().get(plain(found.metadata["Name"])) == found.version
        for text in found.requires or []
        for requirement in [Requirement(text)]
        if (name := plain(requirement.name)) in pins()
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        and not requirement.specifier.contains(pins()[name])
    ]
    assert broken == []
