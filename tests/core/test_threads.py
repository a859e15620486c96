"""The number of threads of an update: tried, kept, given up, at a bounded cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from coach.core import blas
from coach.core.dispatch import Work
from coach.core.threads import LEAST_WORK, Threads
from coach.runners import modes
from coach.runners.exchange import Portion
from coach.runners.modes import make_threads
from coach.runners.settings import RunSettings
from torch import nn

CPU, LARGE, SMALL = torch.device("cpu"), 512, 8
#: Seconds of an update by number of threads, as a function of the number of the update.
Speed = Callable[[int, int], float]


class Machine:
    """Makes updates whose length is given; its clock counts them.

    Args:
        speed: seconds of update ``number`` with ``count`` threads.
        in_use: says how many threads are set.
    """

    def __init__(self, speed: Speed, in_use: Callable[[], int] = torch.get_num_threads) -> None:
        self.speed, self.in_use, self.now = speed, in_use, 0.0
        self.counts: list[int] = []

    def threads(self, **settings: Any) -> Threads:
        """Threads that read this machine's clock."""
        return Threads(clock=lambda: self.now, **settings)

    def update(self, by: Threads, number: int, size: int = LARGE) -> list[int]:
        """Make ``number`` updates; the numbers of threads that they had."""
        matrix = torch.zeros(size, size)
        for _ in range(number):
            with by:
                if not self.counts:  # the first one's operations are counted
                    matrix @ matrix
                self.now += self.speed(self.in_use(), len(self.counts))
                self.counts.append(self.in_use())
        return self.counts[-number:]


def steady(seconds: dict[int, float]) -> Speed:
    """The same seconds throughout."""
    return lambda count, _: seconds[count]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


class TestChoice:
    def test_work_is_counted(self) -> None:
        x, y = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5)
        with Work() as work:
            (x @ y).sum().backward()
        assert work.operations == 2 * 3 * 4 * 5 + 2 * 3 * 5 * 4  # the product and x's gradient

    def test_small_work_is_never_tried(self) -> None:
        assert 2 * SMALL**3 < LEAST_WORK < 2 * LARGE**3
        machine = Machine(steady({1: 4.0, 2: 1.0}))
        small = machine.threads(most=8)
        assert set(machine.update(small, 3_000, SMALL)) == {1}
        assert small.settled

    def test_more_are_tried_as_long_as_that_pays(self) -> None:
        said: list[str] = []
        machine = Machine(steady({1: 4.0, 2: 2.5, 4: 2.0, 8: 1.95}))
        by = machine.threads(most=8, say=said.append)
        assert set(machine.update(by, 200)) == {1, 2, 4, 8}
        assert set(machine.update(by, 200)) == {4}  # 8 would be 2.5 % faster
        assert "use 4 threads" in said[0]
        assert "2.0 times as fast" in said[0]

    @pytest.mark.parametrize("most", [1, 2])
    def test_no_more_than_may_be(self, most: int) -> None:
        machine = Machine(steady({1: 4.0, 2: 2.5, 4: 2.0}))
        assert max(machine.update(machine.threads(most=most), 200)) == most

    def test_what_does_not_pay_is_not_used(self) -> None:
        machine = Machine(steady({1: 4.0, 2: 3.95}))
        by = machine.threads(most=2)
        assert machine.update(by, 3_000).count(2) < 150
        assert not by.settled  # it will try again

    def test_a_resumed_run_stays_with_its_number(self) -> None:
        machine = Machine(steady({1: 4.0, 2: 2.5}))
        by = machine.threads(most=2)
        machine.update(by, 100)
        torch.set_num_threads(1)
        again = machine.threads(most=2)
        again.load_state_dict(by.state_dict())
        assert machine.update(again, 3) == [2, 2, 2]
        torch.set_num_threads(1)
        fixed = machine.threads()  # run.threads is 1 now
        fixed.load_state_dict(by.state_dict())
        assert machine.update(fixed, 3) == [1, 1, 1]

    def test_what_is_no_choice_is_not_saved(self) -> None:
        machine = Machine(steady({1: 4.0, 2: 2.5}))
        small = machine.threads(most=2)
        machine.update(small, 3, SMALL)
        assert small.state_dict() == {}


class TestBusyMachine:
    """Whatever else runs, the choice costs a run at most a tenth over one thread."""

    def bursts(self, share: float, slow: float, seed: int = 1) -> Speed:
        """With two threads a ``share`` of the updates takes ``slow`` times as long as with one."""
        draw = random.Random(seed)
        return lambda count, _: 1.0 if count == 1 else slow if draw.random() < share else 0.6

    @pytest.mark.parametrize("updates", [3_000, 20_000])
    @pytest.mark.parametrize(
        ("share", "slow"), [(1.0, 1.5), (1.0, 4.0), (1.0, 60.0), (0.5, 4.0), (0.2, 20.0)]
    )
    def test_a_busy_program_from_the_start(self, share: float, slow: float, updates: int) -> None:
        machine = Machine(self.bursts(share, slow))
        machine.update(machine.threads(most=2), updates)
        assert machine.now < updates / 0.9

    @pytest.mark.parametrize(("share", "slow"), [(1.0, 1.3), (1.0, 60.0), (0.3, 10.0)])
    def test_a_busy_program_that_comes_later(self, share: float, slow: float) -> None:
        busy = self.bursts(share, slow)
        machine = Machine(lambda count, number: busy(count, number) if number > 200 else 1 / count)
        said: list[str] = []
        by = machine.threads(most=2, say=said.append)
        machine.update(by, 201)
        quiet = machine.now
        machine.update(by, 3_000)
        assert machine.now - quiet < 3_000 / 0.9
        assert "going on with one" in said[-1]

    def test_a_program_that_comes_and_goes(self) -> None:
        """Slow for a while, just after each choice of two threads."""
        machine = Machine(steady({1: 1.0, 2: 0.6}))
        by = machine.threads(most=2)
        machine.speed = lambda count, _: 1.0 if count == 1 else (9.0 if by.decided else 0.6)
        machine.update(by, 5_000)
        assert machine.now < 5_000 / 0.9

    def test_one_long_pause_of_the_machine_changes_nothing(self) -> None:
        machine = Machine(lambda count, number: 500.0 if number == 300 else 1 / count)
        by = machine.threads(most=2)
        machine.update(by, 290)
        assert set(machine.update(by, 200)) == {2}

    def test_two_threads_come_back_when_the_machine_is_quiet_again(self) -> None:
        machine = Machine(lambda count, number: 1 / count if number > 600 else 2.0 * count)
        by = machine.threads(most=2)
        machine.update(by, 600)
        machine.update(by, 5_000)
        assert set(machine.update(by, 100)) == {2}

    def test_trials_become_rarer(self) -> None:
        machine = Machine(steady({1: 4.0, 2: 3.9}))
        by = machine.threads(most=2)
        early, late = machine.update(by, 4_000), machine.update(by, 4_000)
        assert 0 < late.count(2) < early.count(2)


class TestThreadsOfProducts:
    """Where NumPy makes the products, its library has the threads, in updates only."""

    @pytest.fixture
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> Machine:
        set_to = [1]
        monkeypatch.setattr(blas, "use_threads", set_to.append)
        return Machine(steady({1: 4.0, 2: 2.5, 4: 2.0, 8: 1.95}), lambda: set_to[-1])

    def test_they_are_tried(self, machine: Machine) -> None:
        by = machine.threads(most=8, of_products=True)
        assert set(machine.update(by, 200)) == {1, 2, 4, 8}
        assert set(machine.update(by, 10)) == {4}
        assert machine.in_use() == torch.get_num_threads() == 1  # between updates
        machine.speed = steady({1: 4.0, 2: 40.0, 4: 40.0, 8: 40.0})
        machine.update(by, 64)
        assert set(machine.update(by, 10)) == {1}

    def test_a_stated_number_is_used_from_the_start(self, machine: Machine) -> None:
        stated = machine.threads(stated=2, of_products=True)
        assert (stated.count, stated.settled) == (2, False)
        assert machine.update(stated, 300) == [2] * 300
        assert stated.state_dict() == {}

    def test_a_resumed_run_stays_with_its_number(self, machine: Machine) -> None:
        by = machine.threads(most=2, of_products=True)
        machine.update(by, 100)
        again = machine.threads(most=2, of_products=True)
        again.load_state_dict(by.state_dict())
        assert machine.update(again, 3) == [2, 2, 2]

    def test_one_needs_no_watch(self, machine: Machine) -> None:
        assert Threads(of_products=True).settled
        assert Threads(stated=1, of_products=True).settled
        assert machine.in_use() == 1


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


def test_a_stated_number_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "FASTER", False)
    run = RunSettings(100, threads=2)
    assert make_threads(run, Portion(0, 1), CPU, nn.Linear(1, 1), print).most == 1
    assert torch.get_num_threads() == 2
