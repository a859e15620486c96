"""What a person sees of the workers, in a terminal and in plain lines."""

from __future__ import annotations

import io
import re

import pytest
from coach.core.source import Standing, WorkerStanding
from coach.telemetry import console as console_module
from coach.telemetry.console import LiveView, duration
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


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize(
    ("limit", "steps", "value"),
    [(100, 50, 3.25), (50_000, 20_480, 210.3), (50_000_000, 12_345_678, -1234.5)],
)
def test_the_line_of_a_terminal_fits_its_width(
    width: int, limit: int, steps: int, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(1_000_000, 10_000_000, 4_000))
    monkeypatch.setattr(console_module, "monotonic", lambda: float(next(now)))
    text = io.StringIO()
    view = LiveView(Console(file=text, width=width, force_terminal=True), limit=limit)
    view.update(steps, value)
    view.evaluated(steps, 2 * value)
    view.close()
    (line,) = [part for part in _last_frame(text.getvalue()) if part.strip()]
    assert len(line) <= width
    assert line.rstrip().endswith(" left")
    assert "…" not in line
    if width >= 60:
        assert f"evaluation {2 * value:.1f}" in line or f"evaluation {2 * value:.2f}" in line
    if width >= 160:
        assert f"{steps:,} / {limit:,} steps" in line
        assert "━" in line


def _last_frame(shown: str) -> list[str]:
    """Lines of the last picture that a terminal was sent, without control sequences."""
    frame = re.split(r"\x1b\[1A|\x1b\[2K", shown)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).replace("\r", "").splitlines()


def test_speed_and_time_left_are_those_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 500.0
    monkeypatch.setattr(console_module, "monotonic", lambda: now)
    text = io.StringIO()
    view = LiveView(Console(file=text, width=160), limit=10_000)
    for steps in range(100, 5_100, 100):  # 100 a second, then 10 a second
        now += 1.0 if steps <= 4_000 else 10.0
        view.update(steps, None)
    text.truncate(0)
    view.evaluated(5_000, 7.0)
    assert "10/s" in text.getvalue()
    assert "8:20 left" in text.getvalue()  # 5,000 steps at 10 a second


def test_durations_read_as_clocks_do() -> None:
    assert [duration(seconds) for seconds in (0, 9.6, 61, 3_599.6, 36_061)] == [
        "0:00", "0:10", "1:01", "1:00:00", "10:01:01",
    ]  # fmt: skip
