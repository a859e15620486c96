"""What waiting says about a run."""

from __future__ import annotations

import pytest
from coach.runners.tally import advice_on


@pytest.mark.parametrize(
    ("learner", "workers", "verdict"),
    [
        (0.0, 0.9, "learner-bound"),
        (0.3, 0.6, "learner-bound"),
        (0.7, 0.1, "worker-bound"),
        (0.5, 0.0, "worker-bound"),
        (0.1, 0.1, "balanced"),
        (0.3, 0.4, "balanced"),
    ],
)
def test_who_waits_less_holds_the_run_up(learner: float, workers: float, verdict: str) -> None:
    assert advice_on(learner, workers).startswith(verdict)
