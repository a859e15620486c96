"""What `coach verify` shows while seeds train."""

from __future__ import annotations

import io

import pytest
from coach.telemetry import verification
from coach.telemetry.console import RunProgress
from coach.telemetry.verification import VerificationView
from rich.console import Console


class Watch:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(verification, "monotonic", watch)
    return watch


def plain() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=70), text


def test_time_left_counts_all_seeds_at_the_speed_so_far(watch: Watch) -> None:
    console, text = plain()
    with VerificationView(console, [7, 8, 9], steps=4_000) as view:
        view.progress(7, RunProgress(0))
        watch.now += 100
        view.progress(7, RunProgress(1_000, 21.5, 30.0))
        assert view.seconds_left == pytest.approx(1_100)  # 11,000 of 12,000 steps at 10 a second
        watch.now += 300
        view.finished(7, [40.0, 50.0], [10.0, 20.0], 4_000, 390.0)
        assert view.seconds_left == pytest.approx(800)
    shown = text.getvalue().splitlines()
    assert shown[1].startswith("seed 7: 1,000 / 4,000 steps, return 21.5, evaluation 30.0")
    assert "0 of 3 done, about 18:20 left" in shown[1]
    assert shown[2].startswith("seed 7: kept 45.0, last 15.0; 4,000 steps in 390.0 s")
    assert "1 of 3 done, about 13:20 left" in shown[2]


def test_steps_of_a_resumed_run_do_not_count_as_speed(watch: Watch) -> None:
    console, _ = plain()
    with VerificationView(console, [1, 2], steps=1_000, jobs=2) as view:
        view.progress(1, RunProgress(800))  # taken on another day
        view.progress(2, RunProgress(0))
        watch.now += 10
        view.progress(1, RunProgress(850))
        view.progress(2, RunProgress(50))
        assert view.seconds_left == pytest.approx(110)  # 1,100 steps at 10 a second


def test_every_running_seed_has_a_line_though_not_at_every_report(watch: Watch) -> None:
    console, text = plain()
    with VerificationView(console, [1, 2], steps=1_000, jobs=2) as view:
        for step in range(1, 100):
            view.progress(1, RunProgress(step))
            view.progress(2, RunProgress(2 * step))
        assert len(text.getvalue().splitlines()) == 1
        watch.now += 3_600
        view.progress(2, RunProgress(500))
    assert [line[:7] for line in text.getvalue().splitlines()[1:]] == ["seed 1:", "seed 2:"]


def test_a_terminal_shows_the_running_seeds_and_messages_above_them(watch: Watch) -> None:
    text = io.StringIO()
    console = Console(file=text, width=60, height=20, force_terminal=True)
    with VerificationView(console, [5, 6], steps=2_000) as view:
        view.progress(5, RunProgress(1_500, 3.25))
        view.say(5, "a [message]")
        watch.now += 65
        view.progress(5, RunProgress(1_750, 3.25))
    shown = text.getvalue()
    assert "seed 5: a [message]" in shown
    assert "1,750" in shown
    assert "1:05 gone, 0 of 2 done, about 9:45 left" in shown  # 2,250 steps at 250 in 65 s
