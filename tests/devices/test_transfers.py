"""Copies between the CPU and an accelerator: few, packed, and safe while they are under way."""

from __future__ import annotations

from dataclasses import replace

import pretended
import pytest
import torch
from coach.architectures.normalizers import RunningMoments
from coach.core.batch import Batch
from coach.core.device import Fetching, fetch, fits, go_on, is_accelerator, place, upload
from pretended import NAME, pretending

pytestmark = pytest.mark.skipif(bool(pretended.UNAVAILABLE), reason=pretended.UNAVAILABLE)

TENSORS = [
    torch.tensor([True, False, True]),
    torch.arange(5),
    torch.rand(2, 3).t(),  # not contiguous
    torch.rand(()).double(),
    torch.zeros(0, 4),
    torch.randint(0, 255, (2, 3, 3), dtype=torch.uint8),
    torch.rand(7).bfloat16(),
]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_tensors_of_all_types_cross_and_return_in_one_copy_each(asynchronous: bool) -> None:
    with pretending(asynchronous) as traffic:
        there = upload(TENSORS, NAME)
        assert traffic.uploads.total() == 1
        assert traffic.waits.total() == (0 if asynchronous else 1)
        assert all(tensor.device.type == NAME for tensor in there)
        traffic.clear()
        back = fetch(there)
        assert (traffic.downloads.total(), traffic.waits.total()) == (1, 1)
    for before, after in zip(TENSORS, back):
        assert before.dtype == after.dtype
        assert torch.equal(before, after)


def test_what_is_there_already_is_not_copied() -> None:
    with pretending() as traffic:
        known = torch.ones(2).to(NAME)
        traffic.clear()
        same, other = upload([known, torch.zeros(3)], NAME)
        assert same is known
        assert other.device.type == NAME
        upload([known], NAME)
        assert traffic.uploads.total() == 1
    assert upload(TENSORS, "cpu")[0] is TENSORS[0]
    assert fetch(TENSORS)[1] is TENSORS[1]
    assert fetch([]) == []


def test_the_source_may_be_written_to_as_soon_as_upload_returns() -> None:
    with pretending():
        source = torch.ones(4)
        (there,) = upload([source], NAME)
        source.fill_(7)
        assert torch.equal(there.cpu(), torch.ones(4))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_tensor_fetched_later_is_what_it_was(asynchronous: bool) -> None:
    with pretending(asynchronous) as traffic:
        there = torch.arange(3.0).to(NAME)
        fetching = Fetching(there)
        traffic.clear()
        assert torch.equal(fetching.result(), torch.arange(3.0))
        assert traffic.waits.total() == 1
    assert torch.equal(Fetching(torch.arange(3.0)).result(), torch.arange(3.0))


def batch(rows: int = 6) -> Batch:
    return Batch(
        obs={"b": torch.rand(rows, 2), "a": torch.arange(rows)},
        action=torch.arange(rows),
        reward=torch.rand(rows),
        discount=torch.rand(rows),
        next_obs=None,
        boundary=torch.arange(rows) % 2 == 0,
        extras={"value": torch.rand(rows)},
        index=torch.arange(10, 10 + rows),
    )


def test_a_batch_crosses_in_one_copy_and_keeps_its_index_at_hand() -> None:
    original = batch()
    with pretending() as traffic:
        there = original.to(NAME)
        assert (traffic.uploads.total(), traffic.waits.total()) == (1, 0)
        assert {t.device.type for t in there.tensors()} == {NAME}
        assert there.to(there.reward.device) is there
        assert torch.equal(there.place_in_memory, original.index)
        assert there[2:4].place_in_memory.tolist() == [12, 13]
        assert there[there.boundary].place_in_memory.tolist() == [10, 12, 14]
        assert there.rows(torch.tensor([5, 0])).place_in_memory.tolist() == [15, 10]
        pieces = [piece.place_in_memory.tolist() for piece in there.split(4)]
        assert pieces == [[10, 11, 12, 13], [14, 15]]
        back = there.to("cpu")
        assert back.host_index is None
    for before, after in zip(original.tensors(), back.tensors()):
        assert torch.equal(before, after)


@pytest.mark.parametrize("where", ["cpu", NAME])
def test_rows_and_columns_are_picked_by_numbers_of_either_device(where: str) -> None:
    whole = batch(6).map(lambda t: t.reshape(3, 2, *t.shape[1:]))
    whole = replace(whole, index=None, state=torch.rand(2, 4), env_ids=torch.tensor([4, 9]))
    with pretending():
        there = whole.to(NAME)
        numbers = torch.tensor([1])
        (chosen,) = upload([numbers], where)
        column = replace(there, env_ids=None).columns(chosen)
        assert torch.equal(column.reward.cpu(), whole.reward[:, 1:])
        assert torch.equal(column.state.cpu(), whole.state[1:])
        assert there.columns(numbers).env_ids.tolist() == [9]
        assert torch.equal(there.flatten().rows(chosen).obs["a"].cpu(), torch.tensor([1]))


def test_a_stream_goes_on_on_its_own_type_of_device_and_begins_anew_on_another() -> None:
    with pretending():
        for first, second in ((NAME, "cpu"), ("cpu", NAME)):
            stream = torch.Generator(first).manual_seed(5)
            torch.rand(3, generator=stream, device=first)
            state = stream.get_state()
            expected = torch.rand(3, generator=stream, device=first).cpu()
            again = torch.Generator(first)
            assert fits(again, state)
            go_on(again, state)
            assert torch.equal(torch.rand(3, generator=again, device=first).cpu(), expected)
            drawn = []
            for _ in range(2):  # the same each time
                other = torch.Generator(second)
                assert not fits(other, state)
                go_on(other, state)
                drawn.append(torch.rand(3, generator=other, device=second).cpu())
            assert torch.equal(*drawn)
            other = torch.Generator(second)
            go_on(other, stream.get_state())
            assert not torch.equal(torch.rand(3, generator=other, device=second).cpu(), drawn[0])


def test_numbers_of_64_bits_become_32_where_the_device_has_none() -> None:
    moments = RunningMoments((2,))
    moments.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    with pretending(without_double=True):
        there = place(moments, NAME)
        there.update(torch.tensor([[5.0, 6.0]]).to(NAME))
        assert there.mean.dtype == torch.float32
        torch.testing.assert_close(there.mean.cpu(), torch.tensor([3.0, 4.0]))
        torch.testing.assert_close(there.var.cpu(), torch.tensor([8 / 3, 8 / 3]))
    assert place(RunningMoments(()), "cpu").mean.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "expected"), [("cpu", False), ("cuda:1", True), ("mps", True), ("xpu", True)]
)
def test_everything_but_the_cpu_is_an_accelerator(name: str, expected: bool) -> None:
    assert is_accelerator(name) is expected
    assert is_accelerator(torch.device(name)) is expected
