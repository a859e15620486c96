"""Weights arrive under their names in another process, or not at all."""

from __future__ import annotations

import pytest
import torch
from coach.core.flat import FlatParameters
from coach.runners.board import WeightBoard
from coach.runners.exchange import Hogwild, shared_size
from coach.runners.shared import share
from coach.runners.storage import freeze, thaw
from coach.runners.weights import SharedWeights, TransferError, layout_of
from torch import Tensor, nn

WEIGHTS = {
    "b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "a": torch.tensor([5.0, -6.0]),
    "count": torch.tensor(7),
    "c": torch.tensor([8.0, 9.0]),
}


def pair(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[SharedWeights, SharedWeights]:
    layouts = layout_of(mine), layout_of(theirs)
    block = share(lambda zeros: [SharedWeights(layout, zeros) for layout in layouts])  # for either
    sender, receiver = (SharedWeights(layout, block.again().zeros) for layout in layouts)
    return sender, receiver


def test_the_order_of_dictionaries_does_not_matter() -> None:
    turned = dict(reversed(WEIGHTS.items()))
    sender, receiver = pair(WEIGHTS, turned)
    sender.write(turned)
    found = receiver.read()
    assert {name: t.tolist() for name, t in found.items()} == {
        name: t.tolist() for name, t in WEIGHTS.items()
    }


@pytest.mark.parametrize(
    "other",
    [
        {**WEIGHTS, "a": torch.zeros(2, dtype=torch.float64)},
        {**WEIGHTS, "b": torch.zeros(4)},
        {("z" if name == "c" else name): t for name, t in WEIGHTS.items()},
    ],
    ids=["type", "shape", "name"],
)
def test_another_layout_is_refused_on_both_sides(other: dict[str, Tensor]) -> None:
    sender, receiver = pair(WEIGHTS, other)
    sender.write(WEIGHTS)
    with pytest.raises(TransferError, match="names, shapes or types"):
        receiver.read()
    with pytest.raises(TransferError, match="names, shapes or types"):
        sender.write(other)


def test_one_changed_bit_is_noticed() -> None:
    sender, receiver = pair(WEIGHTS, WEIGHTS)
    sender.write(WEIGHTS)
    receiver.read()["c"].view(torch.uint8)[3] ^= 4
    with pytest.raises(TransferError, match="damaged"):
        receiver.read()


class Two(nn.Module):
    """Two layers of the same shape, made in an order that depends on where it is built."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        for name in (first, second):
            setattr(self, name, nn.Linear(2, 2))


def test_a_board_matches_weights_by_name() -> None:
    learner, actor = Two("left", "right"), Two("right", "left")
    board = WeightBoard(learner)
    board.publish(3)
    assert WeightBoard(actor, board.block.again()).fetch() == 3
    for name, tensor in learner.state_dict().items():
        assert actor.state_dict()[name].equal(tensor)


class Statistics(nn.Module):
    """A buffer, which a subclass or a test may replace; ``seen`` is the learner's own."""

    learner_only = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("seen", torch.zeros(0))


def test_a_board_publishes_buffers_that_were_replaced() -> None:
    learner, actor = Statistics(), Statistics()
    board = WeightBoard(learner)
    reader = WeightBoard(actor, board.block.again())
    learner.mean = torch.tensor([1.0, 5.0, -2.0])
    learner.seen = torch.ones(7)  # grows, and is not handed on
    board.publish(1)
    actor.mean = torch.zeros(3)  # a reader's may be replaced as well
    assert reader.fetch() == 1
    assert actor.mean.tolist() == [1.0, 5.0, -2.0]
    assert actor.seen.shape == (0,)
    learner.mean = learner.mean * 2
    board.publish(2)
    assert reader.fetch() == 2
    assert actor.mean.tolist() == [2.0, 10.0, -4.0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (torch.zeros(4), r"'mean' is \[4\] of float32 now, but was \[3\] of float32"),
        (torch.zeros(1), r"'mean' is \[1\] of float32 now"),  # which would be spread in silence
        (torch.zeros(3).double(), r"'mean' is \[3\] of float64 now"),
    ],
)
def test_a_board_refuses_buffers_of_another_form(other: torch.Tensor, words: str) -> None:
    learner = Statistics()
    board = WeightBoard(learner)
    learner.mean = other
    with pytest.raises(TransferError, match=words):
        board.publish(1)


def test_a_board_for_another_module_is_refused() -> None:
    board = WeightBoard(Two("left", "right"))
    board.publish(0)
    with pytest.raises(TransferError, match="names, shapes or types"):
        WeightBoard(Two("left", "middle"), board.block.again())


def test_a_board_notices_damaged_weights() -> None:
    learner = Two("left", "right")
    board = WeightBoard(learner)
    board.publish(1)
    reader = WeightBoard(Two("left", "right"), board.block.again())
    bits = board.block.again().zeros((board.block.nbytes,), torch.uint8)
    bits[64:] ^= 1  # all but the header
    with pytest.raises(TransferError, match="damaged"):
        reader.fetch()


def test_workers_that_share_weights_compare_their_layouts() -> None:
    def groups(*names: str) -> dict[str, FlatParameters]:
        module = Two("left", "right")
        return {name: FlatParameters(list(getattr(module, name).parameters())) for name in names}

    mine = groups("left", "right")
    block = share(lambda zeros: shared_size(mine, zeros))
    leader = Hogwild(mine, block.again().zeros, 1)
    leader.lead()
    turned = groups("right", "left")
    Hogwild(turned, block.again().zeros, 1).follow()
    for name, group in mine.items():
        assert turned[name].vector.equal(group.vector)
    with pytest.raises(TransferError):
        Hogwild(groups("left"), block.again().zeros, 1).follow()


def test_a_frozen_state_that_is_damaged_is_refused() -> None:
    data = bytearray(freeze({"weights": torch.arange(4.0), "steps": 12}))
    assert thaw(bytes(data))["steps"] == 12
    data[-2] ^= 16
    with pytest.raises(Exception, match="damaged on its way"):
        thaw(bytes(data))
