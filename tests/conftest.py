"""Options and settings of the whole suite."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch
from coach.core.errors import CoachError
from coach.core.registry import KINDS, entries, load_plugin

#: Parts that the plugins of this run brought, as (kind, name).
OWN_PARTS = pytest.StashKey[set[tuple[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py|MODULE",
        help="import your own parts, and run the tests of these parts alone",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # The same examples in every run, however slow the machine.
    hypothesis.settings.register_profile("coach", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("coach")
    before = _parts()
    for plugin in config.getoption("--plugin"):
        try:
            load_plugin(plugin)
        except CoachError as error:
            raise pytest.UsageError(str(error)) from None
    own = config.stash[OWN_PARTS] = _parts() - before
    if config.getoption("--plugin") and not own:
        raise pytest.UsageError("The plugin registers no parts; see @register in docs/own-agent.md")


def _parts() -> set[tuple[str, str]]:
    return {(kind, entry.name) for kind in KINDS for entry in entries(kind)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With plugins, keep the tests of their parts."""
    own = config.stash[OWN_PARTS]
    if not own:
        return
    kept = [item for item in items if _is_about(item, own)]
    chosen = set(map(id, kept))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
    items[:] = kept


def _is_about(item: pytest.Item, own: set[tuple[str, str]]) -> bool:
    """Whether a test is parametrized by one of the parts."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if given.get("kind") in KINDS:
        return (given["kind"], given.get("name")) in own
    names = {name for _, name in own}
    return any(
        (argument, value) in own if argument in KINDS else argument == "name" and value in names
        for argument, value in given.items()
        if isinstance(value, str)
    )


@pytest.fixture(scope="session", autouse=True)
def _keys_of_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs are signed with a key of the tests, not with that of whoever runs them."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _every_number_counts() -> None:
    """Runs flush the smallest numbers to zero, for the whole process; tests begin without that."""
    torch.set_flush_denormal(False)
