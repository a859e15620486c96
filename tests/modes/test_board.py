"""Weights on their way from the learner to actors."""

from __future__ import annotations

import threading

import torch
from coach.runners.board import WeightBoard
from torch import nn


class Weights(nn.Module):
    """Parameters and a running statistic that all hold the same number."""

    def __init__(self, sizes: tuple[int, ...] = (3, 5)) -> None:
        super().__init__()
        self.inner = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.register_buffer("statistic", torch.zeros(sizes[0]))

    def fill(self, number: float) -> None:
        for tensor in self.state_dict().values():
            tensor.fill_(number)

    def seen(self) -> set[float]:
        return {float(number) for t in self.state_dict().values() for number in t.unique()}


def boards(*sizes: int) -> tuple[Weights, WeightBoard, Weights, WeightBoard]:
    mine, theirs = Weights(sizes or (3, 5)), Weights(sizes or (3, 5))
    writer = WeightBoard(mine)
    return mine, writer, theirs, WeightBoard(theirs, writer.block.again())


def test_the_newest_weights_arrive_with_their_version() -> None:
    mine, writer, theirs, reader = boards()
    for version in range(5):
        mine.fill(version)
        writer.publish(version)
        if version != 2:  # a reader that was busy misses one, and takes the next
            assert reader.fetch() == version
            assert theirs.seen() == {version}


def test_what_is_known_is_not_copied_again() -> None:
    mine, writer, theirs, reader = boards()
    mine.fill(1)
    writer.publish(7)
    reader.fetch()
    theirs.fill(9)
    assert reader.fetch() == 7
    assert theirs.seen() == {9}


def test_statistics_arrive_though_the_version_stays() -> None:
    mine, writer, theirs, reader = boards()
    writer.publish(3)
    reader.fetch()
    mine.fill(4)
    writer.publish(3)
    assert reader.fetch() == 3
    assert theirs.seen() == {4}


def test_a_reader_never_keeps_half_of_two_versions() -> None:
    mine, writer, theirs, reader = boards(40_000, 40_000)
    writer.publish(0)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            mine.fill(number % 1_000)
            writer.publish(number)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(100):
            version = reader.fetch()
            assert theirs.seen() == {version % 1_000}
    finally:
        stop.set()
        thread.join()
