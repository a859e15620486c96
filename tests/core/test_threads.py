"""The number of torch's threads: tried out, kept, given up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from coach.core import blas, threads
from coach.core.dispatch import Work
from coach.core.threads import _PAUSE as PAUSE
from coach.core.threads import LEAST_WORK, Threads
from coach.runners import modes
from coach.runners.exchange import Portion
from coach.runners.modes import make_threads
from coach.runners.settings import RunSettings
from torch import nn

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
        updates.make(found, PAUSE)
        updates.seconds[2] = 2.0
        updates.make(found, 24)
        assert found.count == torch.get_num_threads() == 2
        updates.seconds[2] = 40.0
        updates.make(found, 64)
        assert found.count == 1
        updates.seconds[2] = 2.0
        updates.make(found, 2 * PAUSE + 24)
        assert found.count == torch.get_num_threads() == 2

    def test_it_tries_less_and_less_often(self, updates: Updates) -> None:
        updates.seconds[2] = 3.9
        found = Threads(most=2)
        updates.make(found, 8 * PAUSE)
        trials = [number for number, count in enumerate(updates.counts) if count == 2]
        begins = [trials[0], *(b for a, b in pairwise(trials) if b - a > 100)]
        assert [b - a for a, b in pairwise(begins)] == [PAUSE + 24, 2 * PAUSE + 24, 4 * PAUSE + 24]
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
    assert make_threads(run, Portion(0, portion), CPU, nn.Linear(1, 1), print).most == most


class TestThreadsOfProducts:
    """Where NumPy makes the products, its library has the threads, in updates only."""

    @pytest.fixture(autouse=True)
    def set_to(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        found = [1]
        monkeypatch.setattr(blas, "use_threads", found.append)
        return found

    def make(self, by: Threads, updates: Updates, set_to: list[int], number: int) -> list[int]:
        """So many updates; the threads that they had."""
        had = []
        for _ in range(number):
            with by:
                if not by.decided and not by._trying:
                    torch.zeros(LARGE, LARGE) @ torch.zeros(LARGE, LARGE)
                had.append(set_to[-1])
                updates.now += updates.seconds[set_to[-1]]
            assert set_to[-1] == torch.get_num_threads() == 1
        return had

    def test_they_are_tried(self, updates: Updates, set_to: list[int]) -> None:
        found = Threads(most=8, of_products=True)
        assert set(self.make(found, updates, set_to, 200)) == {1, 2, 4, 8}
        assert found.count == 4
        assert set(self.make(found, updates, set_to, 10)) == {4}
        updates.seconds[4] = 40.0
        self.make(found, updates, set_to, 64)
        assert found.count == 1
        assert set(self.make(found, updates, set_to, 10)) == {1}

    def test_a_stated_number_is_used_from_the_start(
        self, updates: Updates, set_to: list[int]
    ) -> None:
        stated = Threads(stated=2, of_products=True)
        assert (stated.count, stated.settled) == (2, False)
        assert self.make(stated, updates, set_to, 300) == [2] * 300
        assert stated.state_dict() == {}

    def test_a_resumed_run_stays_with_its_number(self, updates: Updates, set_to: list[int]) -> None:
        found = Threads(most=2, of_products=True)
        self.make(found, updates, set_to, 100)
        again = Threads(most=2, of_products=True)
        again.load_state_dict(found.state_dict())
        assert self.make(again, updates, set_to, 3) == [2, 2, 2]

    def test_one_needs_no_watch(self, set_to: list[int]) -> None:
        assert Threads(of_products=True).settled
        assert Threads(stated=1, of_products=True).settled
        assert set_to == [1]


@pytest.mark.parametrize(
    ("changed", "convolves", "faster", "of_products"),
    [
        ({}, False, True, True),
        ({}, False, False, False),
        ({}, True, True, False),  # convolutions have threads of torch's
        ({"compile": True}, False, True, False),
    ],
)
@pytest.mark.parametrize("count", ["auto", 2])
def test_whose_threads_they_are(
    changed: dict[str, Any],
    convolves: bool,
    faster: bool,
    of_products: bool,
    count: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blas, "FASTER", faster)
    monkeypatch.setattr(modes, "cpus", lambda: 8)
    network = nn.Sequential(nn.Conv2d(1, 1, 1) if convolves else nn.Linear(1, 1))
    run = RunSettings(100, threads=count, **changed)
    made = make_threads(run, Portion(0, 1), CPU, network, print)
    assert made.of_products is of_products
    assert torch.get_num_threads() == (2 if count == 2 and not of_products else 1)
    assert made.settled or count == "auto" or of_products
    torch.set_num_threads(1)


def test_a_stated_number_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "FASTER", False)
    run = RunSettings(100, threads=2)
    assert make_threads(run, Portion(0, 1), CPU, nn.Linear(1, 1), print).most == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
