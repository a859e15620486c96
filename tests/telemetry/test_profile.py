"""Time counts for the innermost activity, and adds up to all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from coach.telemetry import profile as profiling
from coach.telemetry.profile import REST, Profile
from rich.console import Console


class Watch:
    """A clock that only moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Work:
    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def outer(self) -> str:
        self.watch.now += 1
        self.inner()
        self.watch.now += 1
        return "done"

    def inner(self) -> None:
        self.watch.now += 10

    def items(self) -> Iterator[int]:
        for number in range(3):
            self.watch.now += 100
            yield number


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(profiling, "perf_counter", watch)
    return watch


def seconds(profile: Profile) -> dict[str, float]:
    return {name: activity.seconds for name, activity in profile.activities.items()}


def test_nested_time_counts_once(watch: Watch) -> None:
    work, profile = Work(watch), Profile()
    profile.watch(work, "outer", "outside")
    profile.watch(work, "inner", "inside")
    profile.start()
    watch.now += 5
    assert work.outer() == "done"
    watch.now += 5
    profile.stop()
    assert seconds(profile) == {REST: 10, "outside": 2, "inside": 10}


def test_a_whole_activity_covers_what_it_calls(watch: Watch) -> None:
    work, profile = Work(watch), Profile()
    profile.watch(work, "inner", "inside")
    profile.watch(work, "outer", "outside", whole=True)
    work.outer()
    profile.stop()
    assert seconds(profile) == {REST: 0, "outside": 12}
    work.inner()
    profile.stop()
    assert seconds(profile)["inside"] == 10


def test_steps_of_an_iterator_are_timed(watch: Watch) -> None:
    work, profile = Work(watch), Profile()
    profile.watch(work, "items", "drawing")
    for number in work.items():
        watch.now += number
    profile.stop()
    assert seconds(profile) == {REST: 3, "drawing": 300}
    assert profile.activities["drawing"].calls == 5  # the call, three items, the end


def test_a_failure_is_passed_on_and_timed(watch: Watch) -> None:
    work, profile = Work(watch), Profile()

    def fail() -> None:
        watch.now += 7
        raise ValueError

    work.inner = fail  # type: ignore[method-assign]
    profile.watch(work, "inner", "inside")
    with pytest.raises(ValueError):  # noqa: PT011
        work.outer()
    watch.now += 1
    profile.stop()
    assert seconds(profile) == {REST: 2, "inside": 7}


def test_the_table_shows_shares_and_what_actors_did(watch: Watch) -> None:
    work, profile = Work(watch), Profile()
    profile.watch(work, "inner", "inside")
    work.outer()
    profile.stop()
    console = Console(record=True, width=100)
    profile.print(console, {"acting": 3.0, "environments": 1.0})
    text = console.export_text()
    assert "83.3%" in text
    assert "acting 75%, environments 25%" in text
