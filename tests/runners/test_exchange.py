"""Weights that workers step apart and exchange now and then."""

from __future__ import annotations

import torch
from coach.core.flat import FlatParameters
from coach.optimizers.sgd import SGD
from coach.runners.exchange import Hogwild, shared_size
from coach.runners.shared import share
from torch import nn


class Sharing:
    """A worker with one weight of 1, which its steps lower by a tenth of a gradient."""

    def __init__(self, every: int = 2) -> None:
        self.group = FlatParameters([nn.Parameter(torch.ones(1))])
        self.stepper = SGD(lr=0.1).build(self.group.vector)
        self.every = every

    @property
    def weight(self) -> float:
        return round(float(self.group.parameters[0].detach()), 4)

    def step(self, gradient: float, max_norm: float | None = None) -> torch.Tensor | None:
        self.group.gradients[0].fill_(gradient)
        return self.hogwild(self.stepper, self.group, 0.1, max_norm)

    def join(self, hogwild: Hogwild) -> None:
        self.hogwild = hogwild


def workers(every: int = 2) -> tuple[Sharing, Sharing]:
    first, second = Sharing(), Sharing()
    block = share(lambda zeros: shared_size({"all": first.group}, zeros))
    for worker in (first, second):
        worker.join(Hogwild({"all": worker.group}, block.again().zeros, every))
    first.hogwild.lead()
    second.hogwild.follow()
    return first, second


def test_steps_are_added_at_every_exchange() -> None:
    first, second = workers()
    first.step(1.0)
    second.step(2.0)
    assert (first.weight, second.weight) == (0.9, 0.8)  # each its own
    first.step(1.0)
    assert first.weight == 0.8  # nobody else has handed anything over
    second.step(2.0)
    assert second.weight == 0.4  # 1 - 0.2 - 0.4: all four steps
    first.step(1.0)
    assert first.weight == 0.7
    first.step(1.0)
    assert first.weight == 0.2  # 0.4 - 0.2


def test_what_is_left_can_be_handed_over() -> None:
    first, second = workers(every=100)
    first.step(1.0)
    second.step(2.0)
    second.hogwild.exchange()
    assert second.weight == 0.8
    first.hogwild.exchange()
    assert first.weight == 0.7
    first.hogwild.exchange()  # handed over once only
    second.hogwild.exchange()
    assert first.weight == second.weight == 0.7


def test_who_comes_later_begins_with_what_all_share() -> None:
    first, second = workers(every=1)
    first.step(5.0)
    second.group.parameters[0].data.fill_(9.0)
    second.hogwild.follow()
    assert second.weight == 0.5
    second.step(1.0)
    assert second.weight == 0.4


def test_gradients_are_clipped_before_a_step() -> None:
    first, _ = workers()
    square = first.step(3.0, max_norm=1.0)
    assert square is not None
    assert float(square) == 9.0
    assert first.weight == 0.9
