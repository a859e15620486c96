"""The number of torch's threads: tried out, kept, given up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from coach.core import threads
from coach.core.dispatch import Work
from coach.core.threads import LEAST_WORK, Threads
from coach.runners import modes
from coach.runners.exchange import Portion
from coach.runners.modes import make_threads
from coach.runners.settings import RunSettings

CPU, LARGE, SMALL = torch.device("cpu"), 512, 8


class Updates:
    """Updates that take as long as is said for a number of threads; the clock is made up."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now = seconds, 0.0
        self.counts: list[int] = []

    def clock(self) -> float:
        return self.now

    def make(self, by: Threads, number: int, size: int = LARGE) -> None:
        matrix = torch.zeros(size, size)
        for _ in range(number):
            with by:
                if by.decided or not by._trying:
                    matrix @ matrix
                self.counts.append(torch.get_num_threads())
                self.now += self.seconds[torch.get_num_threads()]


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> Iterator[Updates]:
    made = Updates({1: 4.0, 2: 2.5, 4: 2.0, 8: 1.9})
    monkeypatch.setattr(threads, "perf_counter", made.clock)
    torch.set_num_threads(1)
    yield made
    torch.set_num_threads(1)


class TestThreads:
    def test_work_is_counted(self) -> None:
        x, y = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5)
        with Work() as work:
            (x @ y).sum().backward()
        assert work.operations == 2 * 3 * 4 * 5 + 2 * 3 * 5 * 4  # the product and x's gradient

    def test_small_work_is_never_tried(self, updates: Updates) -> None:
        assert 2 * SMALL**3 < LEAST_WORK < 2 * LARGE**3
        small = Threads(most=8)
        updates.make(small, 3_000, SMALL)
        assert small.settled
        assert set(updates.counts) == {1}

    def test_more_are_tried_as_long_as_that_pays(self, updates: Updates) -> None:
        told: list[str] = []
        found = Threads(most=8, say=told.append)
        updates.make(found, 200)
        assert found.count == torch.get_num_threads() == 4  # 8 would be 5 % faster
        assert set(updates.counts) == {1, 2, 4, 8}
        assert "use 4 threads" in told[0]
        assert "2.0 times as fast" in told[0]

    @pytest.mark.parametrize("most", [1, 2])
    def test_no_more_than_may_be(self, most: int, updates: Updates) -> None:
        found = Threads(most)
        updates.make(found, 200)
        assert found.count == max(updates.counts) == most

    @pytest.mark.parametrize(("seconds", "tried"), [(0.01, 48), (0.1, 24)])
    def test_slow_updates_are_tried_less_often(
        self, seconds: float, tried: int, updates: Updates
    ) -> None:
        updates.seconds = {1: seconds, 2: seconds / 2}
        found = Threads(most=2)
        updates.make(found, tried)  # the first one is counted and no part of a trial
        assert not found.decided
        updates.make(found, 1)
        assert found.decided
        assert found.count == 2

    def test_what_does_not_pay_is_not_used(self, updates: Updates) -> None:
        updates.seconds[2] = 3.9
        found = Threads(most=2)
        updates.make(found, 200)
        assert found.count == torch.get_num_threads() == 1

    def test_updates_that_become_slower_than_with_one_thread_end_it(self, updates: Updates) -> None:
        told: list[str] = []
        found = Threads(most=2, say=told.append)
        updates.make(found, 100)
        updates.seconds[2] = 40.0
        updates.make(found, 60)
        assert found.count == 2  # a moment alone says nothing
        updates.make(found, 10)
        assert found.count == torch.get_num_threads() == 1
        assert "going on with one" in told[-1]

    def test_a_run_that_is_left_with_one_tries_again(self, updates: Updates) -> None:
        updates.seconds[2] = 3.9  # something else keeps the other CPU busy
        found = Threads(most=2)
        updates.make(found, 25)
        assert (found.decided, found.count, found.settled) == (True, 1, False)
        updates.make(found, 1_000)
        updates.seconds[2] = 2.0
        updates.make(found, 24)
        assert found.count == torch.get_num_threads() == 2
        updates.seconds[2] = 40.0
        updates.make(found, 64)
        assert found.count == 1
        updates.seconds[2] = 2.0
        updates.make(found, 2_024)
        assert found.count == torch.get_num_threads() == 2

    def test_it_tries_less_and_less_often(self, updates: Updates) -> None:
        updates.seconds[2] = 3.9
        found = Threads(most=2)
        updates.make(found, 8_000)
        trials = [number for number, count in enumerate(updates.counts) if count == 2]
        begins = [trials[0], *(b for a, b in pairwise(trials) if b - a > 100)]
        assert [b - a for a, b in pairwise(begins)] == [1_024, 2_024, 4_024]
        assert found.state_dict() == {"count": 1, "alone": 4.0}

    def test_a_resumed_run_stays_with_its_number(self, updates: Updates) -> None:
        found = Threads(most=2)
        updates.make(found, 100)
        torch.set_num_threads(1)
        again = Threads(most=2)
        again.load_state_dict(found.state_dict())
        assert again.decided
        assert torch.get_num_threads() == 2
        fixed = Threads()  # run.threads is 1 now
        torch.set_num_threads(1)
        fixed.load_state_dict(found.state_dict())
        assert torch.get_num_threads() == 1

    def test_what_is_no_choice_is_not_saved(self, updates: Updates) -> None:
        small = Threads(most=2)
        updates.make(small, 3, SMALL)
        assert small.state_dict() == {}


@pytest.mark.parametrize(
    ("mode", "workers", "portion", "most"),
    [
        ("single", None, 1, 8),
        ("sync", 3, 1, 8),  # workers wait while the learner learns
        ("async", 3, 1, 5),
        ("async", 16, 1, 1),
        ("sync", 4, 4, 2),
    ],
)
def test_cpus_that_have_nothing_else_to_do(
    mode: str, workers: int | None, portion: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "cpus", lambda: 8)
    run = RunSettings(100, mode=mode, workers=workers, envs=16)  # type: ignore[arg-type]
    assert make_threads(run, Portion(0, portion), CPU, print).most == most


def test_a_stated_number_is_no_choice() -> None:
    assert make_threads(RunSettings(100, threads=2), Portion(0, 1), CPU, print).most == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
