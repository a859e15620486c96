"""Options and settings of the whole suite."""

from __future__ import annotations

import pytest
import torch
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
    for plugin in config.getoption("--plugin"):
        load_plugin(plugin)
