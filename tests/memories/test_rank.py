"""Drawing by rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coach.memories.replay import Replay
from coach.memories.samplers.rank import Rank
from naive import SPECS, World

SPEC = SPECS["vector"]


def memory(sampler: Rank, capacity: int = 100, fragment: int = 50) -> Replay:
    built = Replay(SPEC, 1, capacity=capacity, batch_size=32, warmup=0, updates_per_step=1, sampler=sampler)  # fmt: skip
    built.write(World(SPEC, 1, 0).fragment(fragment))
    return built


def counted(sampler: Rank, replay: Replay, times: int = 2_000) -> np.ndarray:
    rng, counts = torch.Generator().manual_seed(0), np.zeros(replay.stripes.size)
    for _ in range(times):
        index, _ = sampler.draw(replay.stripes, 32, 0, rng)
        counts += np.bincount(index.numpy(), minlength=len(counts))
    return counts / counts.sum()


def test_frequencies_follow_the_ranks_and_not_the_sizes() -> None:
    sampler = Rank(alpha=0.7, sort_every=1)
    replay = memory(sampler)
    errors = torch.arange(50.0)
    errors[49] = 1e9  # an outlier is the first, and no more than that
    sampler.feedback(torch.arange(50), errors)
    wanted = np.arange(1, 51) ** -0.7
    np.testing.assert_allclose(
        counted(sampler, replay)[:50][::-1], wanted / wanted.sum(), atol=2e-3
    )


def test_weights_by_hand() -> None:
    sampler = Rank(alpha=1.0, beta=0.5, sort_every=1)
    replay = memory(sampler, fragment=4)
    sampler.feedback(torch.arange(4), torch.tensor([1.0, 4.0, 3.0, 2.0]))
    index, weight = sampler.draw(replay.stripes, 64, 0, torch.Generator().manual_seed(0))
    assert weight is not None
    rank = torch.tensor([4.0, 1.0, 2.0, 3.0])[index]
    probability = (1 / rank) / (1 + 1 / 2 + 1 / 3 + 1 / 4)
    wanted = (4 * probability) ** -0.5
    torch.testing.assert_close(weight, (wanted / wanted.max()).float())


def test_what_is_new_stands_in_front_until_it_is_sorted_in() -> None:
    sampler = Rank(alpha=1.0, sort_every=10**9)
    replay = memory(sampler, fragment=20)
    counted(sampler, replay, 1)
    sampler.feedback(torch.arange(20), torch.full((20,), 100.0))
    replay.write(World(SPEC, 1, 1).fragment(5))
    found = counted(sampler, replay)
    assert set(np.argsort(-found)[:5]) == {20, 21, 22, 23, 24}


@pytest.mark.parametrize("sort_every", [1, 1_000])
def test_rows_that_are_no_transitions_are_never_drawn(sort_every: int) -> None:
    sampler, world = Rank(sort_every=sort_every), World(SPEC, 1, 0)
    replay = memory(sampler, capacity=40, fragment=30)
    rng = torch.Generator().manual_seed(0)
    for _ in range(12):  # several times round the ring
        replay.write(world.fragment(17))
        index, _ = sampler.draw(replay.stripes, 512, 0, rng)
        newest = int(replay.stripes.written[0])
        held = {row % replay.stripes.rows for row in range(newest - 40, newest)}
        assert set(index.tolist()) <= held


def test_goes_on_where_it_was() -> None:
    one = Rank(sort_every=3)
    replay = memory(one)
    rng = torch.Generator().manual_seed(0)
    for number in range(4):
        index, _ = one.draw(replay.stripes, 8, 0, rng)
        one.feedback(index, torch.rand(8, generator=rng))
        if number == 2:
            replay.write(World(SPEC, 1, 2).fragment(10))
    two = Rank(sort_every=3)
    two.attach(replay.stripes)
    two.load_state_dict({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in one.state_dict().items()})  # fmt: skip
    for _ in range(8):
        rows = [s.draw(replay.stripes, 8, 0, torch.Generator().manual_seed(5)) for s in (one, two)]
        assert torch.equal(rows[0][0], rows[1][0])
        for sampler in (one, two):
            sampler.feedback(rows[0][0], torch.arange(8.0))
