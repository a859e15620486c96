"""What a person sees of the workers, in a terminal and in plain lines."""

from __future__ import annotations

import io

import pytest
from coach.core.source import Standing, WorkerStanding
from coach.telemetry.console import LiveView
from rich.console import Console

STANDING = Standing(
    [WorkerStanding(0, 1_200.0, 0.25, 3.0, 1), WorkerStanding(1, 800.0, 0.5, 5.0, 0)],
    learner_waits=0.07,
    policy_lag_max=6,
    queued=1.5,
    advice="learner-bound: more workers will not help",
)


def shown(terminal: bool) -> str:
    text = io.StringIO()
    view = LiveView(Console(file=text, width=160, force_terminal=terminal), limit=100)
    view.workers(STANDING)
    view.evaluated(50, 3.25)
    view.close()
    return text.getvalue()


def test_plain_lines_sum_the_workers_up() -> None:
    assert (
        "2 workers: 2,000/s, 1 restart, policy lag 4.0 (at most 6), 1.5 fragments queued, learner "
        "waits 7%. Learner-bound: more workers will not help." in shown(terminal=False)
    )


def test_a_terminal_shows_every_worker() -> None:
    text = shown(terminal=True)
    assert "policy lag" in text
    assert "1,200" in text
    assert "800" in text
    assert "25%" in text
    assert "Learner-bound" in text


def test_scalars_leave_out_what_is_not_known() -> None:
    scalars = Standing([WorkerStanding(0, 10.0)], learner_waits=0.5).scalars()
    assert scalars == {
        "workers/learner_waits": 0.5,
        "workers/restarts": 0.0,
        "worker_0/env_steps_per_s": 10.0,
        "worker_0/restarts": 0.0,
    }
    told = STANDING.scalars()
    assert told["workers/policy_lag"] == 4.0
    assert told["workers/queued_fragments"] == 1.5
    assert told["worker_1/waits"] == 0.5


def test_text_in_brackets_is_no_markup() -> None:
    text = io.StringIO()
    LiveView(Console(file=text, width=80), limit=1).say("a failure [/at/pair.cc:553] there")
    assert text.getvalue() == "a failure [/at/pair.cc:553] there\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_says_nothing_of_progress(terminal: bool) -> None:
    text = io.StringIO()
    view = LiveView(Console(file=text, force_terminal=terminal), limit=100, quiet=True)
    view.workers(STANDING)
    view.evaluated(50, 3.25)
    view.close()
    assert text.getvalue() == ""
