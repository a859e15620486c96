"""Options and settings of the whole suite."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from coach.core.errors import CoachError
from coach.core.registry import load_plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py|MODULE",
        help="import your own parts, so that the contract tests run against them too",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # The same examples in every run, however slow the machine.
    hypothesis.settings.register_profile("coach", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("coach")
    for plugin in config.getoption("--plugin"):
        try:
            load_plugin(plugin)
        except CoachError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(autouse=True)
def _every_number_counts() -> None:
    """Runs flush the smallest numbers to zero, for the whole process; tests begin without that."""
    torch.set_flush_denormal(False)
