"""What tests of modes share."""

from __future__ import annotations

import pytest
from mode_runs import Alone


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Outcomes of runs in mode single."""
    return Alone(tmp_path_factory.mktemp("alone"))
