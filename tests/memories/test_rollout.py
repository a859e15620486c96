"""Epochs and minibatches of rollouts."""

from __future__ import annotations

from collections import Counter

import torch
from coach.core.batch import Batch
from coach.memories.rollout import Rollout
from naive import SPECS, World

SPEC = SPECS["dict"]


def test_every_row_comes_once_per_epoch() -> None:
    memory = Rollout(SPEC, 2, horizon=6, epochs=3, batch_size=5)
    memory.write(World(SPEC, 2, 0).fragment(6))
    sizes, seen = [], Counter[float]()
    for batch in memory.batches(lambda b: b):
        sizes.append(len(batch))
        seen.update(batch.reward.tolist())
    assert sizes == [5, 5, 2] * 3
    assert set(seen.values()) == {3}
    assert len(seen) == 12


def test_rows_stay_together_when_shuffled() -> None:
    world, memory = World(SPEC, 2, 0), Rollout(SPEC, 2, horizon=6, epochs=1, batch_size=4)
    fragment = world.fragment(6)
    memory.write(fragment)
    by_reward = {row.reward: row for rows in world.rows for row in rows}
    for batch in memory.batches(lambda b: b):
        for place in range(len(batch)):
            row = by_reward[batch.reward[place].item()]
            assert batch.obs["b"]["c"][place].item() == row.obs["b"]["c"]
            assert batch.action[place].tolist() == row.action.tolist()


def test_without_a_batch_size_the_rollout_is_one() -> None:
    memory = Rollout(SPEC, 2, horizon=6, epochs=2)
    memory.write(World(SPEC, 2, 0).fragment(6))
    assert [len(batch) for batch in memory.batches(lambda b: b)] == [12, 12]


def test_the_discount_is_applied_once_and_prepare_sees_time() -> None:
    memory, seen = Rollout(SPEC, 2, horizon=6, epochs=2, discount=0.9), []

    def prepare(batch: Batch) -> Batch:
        seen.append(batch)
        return batch

    fragment = World(SPEC, 2, 0).fragment(6)
    memory.write(fragment)
    (first, _) = memory.batches(prepare)
    assert len(seen) == 1
    assert seen[0].reward.shape == (6, 2)
    torch.testing.assert_close(first.discount, 0.9 * fragment.discount.flatten())


def test_nothing_is_owed_before_the_horizon() -> None:
    world, memory = World(SPEC, 2, 0), Rollout(SPEC, 2, horizon=6, epochs=1)
    whole = [world.fragment(2) for _ in range(3)]
    for fragment in whole[:2]:
        memory.write(fragment)
        assert list(memory.batches(lambda b: b)) == []
    memory.write(whole[2])
    (batch,) = memory.batches(lambda b: b)
    rewards = torch.cat([fragment.reward for fragment in whole])
    assert batch.reward.tolist() == rewards.flatten().tolist()
    assert list(memory.batches(lambda b: b)) == []


def test_state_in_the_middle_of_a_rollout_continues_identically() -> None:
    def fresh() -> Rollout:
        return Rollout(SPEC, 2, horizon=4, epochs=2, batch_size=3)

    def drawn(memory: Rollout) -> list[list[float]]:
        return [batch.reward.tolist() for batch in memory.batches(lambda b: b)]

    world, first = World(SPEC, 2, 0), fresh()
    first.write(world.fragment(4))
    drawn(first)
    half = world.fragment(2)
    half.extras["value"] = torch.arange(4.0).view(2, 2)
    first.write(half)
    second = fresh()
    second.load_state_dict(first.state_dict())
    rest = world.fragment(2)
    rest.extras["value"] = torch.arange(4.0).view(2, 2)
    first.write(rest), second.write(rest)
    assert drawn(first) == drawn(second)
