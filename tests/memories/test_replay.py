"""How often a replay memory owes updates, and what it draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.memories.replay import Replay
from coach.memories.samplers.prioritized import Prioritized
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import SPECS, World
from scipy import stats

SPEC = SPECS["vector"]


def replay(num_envs: int = 1, **options: Any) -> Replay:
    return Replay(SPEC, num_envs, **{"capacity": 100, "batch_size": 4, "warmup": 0, **options})


def owed(memory: Replay) -> int:
    return sum(1 for _ in memory.batches(lambda batch: batch))


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 30),
    st.floats(0.05, 3, allow_subnormal=False),
    st.integers(1, 3),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_updates_are_exactly_those_owed(
    warmup: int, ratio: float, envs: int, fragments: list[int]
) -> None:
    world = World(SPEC, envs, 0)
    memory = replay(envs, warmup=warmup, updates_per_step=ratio)
    done = steps = 0
    for length in fragments:
        memory.write(world.fragment(length))
        steps += length * envs
        done += owed(memory)
        assert done == max(0, int((steps - warmup) * ratio + 1e-6))


@pytest.mark.parametrize(
    ("ratio", "envs", "warmup", "length"),
    [
        (0.25, 1, 1_000, 4),
        (0.25, 2, 1_000, 2),
        (0.25, 8, 1_000, 1),
        (0.1, 1, 0, 10),
        (0.01, 1, 0, 10),  # 100 steps, in equal parts of at most 16
        (1 / 3, 1, 999, 3),
        (0.3, 1, 0, 1),
        (2, 1, 0, 1),
        (0.25, 1, 1_002, 2),
    ],
)
def test_fragments_fit_between_updates(ratio: float, envs: int, warmup: int, length: int) -> None:
    def after(steps: int) -> list[int]:
        memory = replay(envs, warmup=warmup, updates_per_step=ratio, capacity=2_000)
        world, updated = World(SPEC, envs, 0), []
        for step in range(steps, (1_300 // envs // length) * length + 1, steps):
            memory.write(world.fragment(steps))
            updated += [step] * owed(memory)
        return updated

    memory = replay(envs, warmup=warmup, updates_per_step=ratio, capacity=2_000)
    assert memory.fragment_length == length
    assert after(length) == after(1)


def test_a_tenth_is_one_in_ten() -> None:
    memory, world, done = replay(updates_per_step=0.1), World(SPEC, 1, 0), []
    for _ in range(100):
        memory.write(world.fragment(1))
        done.append(owed(memory))
    assert done == [0] * 9 + [1] + ([0] * 9 + [1]) * 9


def test_one_seed_one_sequence_of_minibatches() -> None:
    def drawn(seed: int) -> list[list[int]]:
        memory = replay(seed=seed, updates_per_step=1)
        memory.write(World(SPEC, 1, 0).fragment(20))
        return [b.index.tolist() for b in memory.batches(lambda b: b) if b.index is not None]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_uniform_is_uniform_over_what_is_held() -> None:
    memory = replay(num_envs=3, capacity=30)
    memory.write(World(SPEC, 3, 0).fragment(7))
    memory.write(World(SPEC, 3, 0).fragment(8))
    held = {
        env * memory.stripes.rows + row % memory.stripes.rows
        for env in range(3)
        for row in range(5, 15)
    }
    index, weight = memory.sampler.draw(memory.stripes, 60_000, 0, torch.Generator().manual_seed(0))
    assert weight is None
    drawn = index.numpy()
    values, counts = np.unique(drawn, return_counts=True)
    assert set(values) == held
    assert stats.chisquare(counts).pvalue > 1e-3


def test_minibatches_pass_through_prepare() -> None:
    memory = replay(updates_per_step=1)
    memory.write(World(SPEC, 1, 0).fragment(1))

    def mark(batch: Batch) -> Batch:
        return batch[:2]

    assert [len(batch) for batch in memory.batches(mark)] == [2]


def test_a_capacity_below_one_per_environment_is_refused() -> None:
    with pytest.raises(SettingError, match="capacity"):
        replay(num_envs=8, capacity=7)


def test_priorities_are_wanted_where_the_sampler_learns_from_them() -> None:
    assert not replay().wants_priorities
    assert replay(sampler=Prioritized()).wants_priorities


@pytest.mark.parametrize("prioritized", [False, True])
def test_state_continues_identically(prioritized: bool) -> None:
    def fresh() -> Replay:
        return replay(updates_per_step=1, sampler=Prioritized() if prioritized else None)

    def play(memory: Replay, fragment: Batch) -> list[Any]:
        memory.write(fragment)
        seen = []
        for batch in memory.batches(lambda b: b):
            assert batch.index is not None
            weight = None if batch.weight is None else batch.weight.tolist()
            seen.append((batch.index.tolist(), weight, batch.reward.tolist()))
            memory.feedback(batch, batch.reward.abs())
        return seen

    world = World(SPEC, 1, 5)
    first = fresh()
    play(first, world.fragment(30))
    second = fresh()
    second.load_rows(first.rows([])[0])
    second.load_state_dict(first.state_dict())
    more = world.fragment(10)
    assert play(first, more) == play(second, more)


def test_fill_and_age_are_told() -> None:
    memory = replay(updates_per_step=1, capacity=40)
    memory.write(World(SPEC, 1, 0).fragment(10))
    owed(memory)
    told = memory.monitor()
    assert told["fill"] == 0.25
    assert 0 <= told["age"] <= 9


def test_another_ratio_on_resuming_owes_no_burst_and_gives_no_pause() -> None:
    spec = SPECS["dict"]
    settings = {"capacity": 100, "batch_size": 4, "warmup": 0}
    before = Replay(spec, 2, updates_per_step=1.0, **settings)
    before.write(World(spec, 2, 0).fragment(10))
    assert len(list(before.batches(lambda batch: batch))) == 20
    rows, _ = before.rows([])
    for ratio in (0.5, 4.0):
        after = Replay(spec, 2, updates_per_step=ratio, **settings)
        after.load_rows(rows)
        after.load_state_dict(before.state_dict())
        assert not list(after.batches(lambda batch: batch))
        after.write(World(spec, 2, 0).fragment(4))
        assert len(list(after.batches(lambda batch: batch))) == 8 * ratio


@pytest.mark.parametrize("envs", [1, 3])
def test_minibatches_drawn_at_once_are_those_drawn_singly(
    envs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn() -> list[Batch]:
        memory, world = replay(envs, updates_per_step=1.5, seed=5), World(SPEC, envs, 0)
        batches: list[Batch] = []
        for _ in range(4):
            memory.write(world.fragment(4))
            batches += memory.batches(lambda batch: batch)
        return batches

    at_once = drawn()
    monkeypatch.setattr("coach.memories.replay._AT_ONCE_BYTES", 1)
    singly = drawn()
    assert len(at_once) == len(singly) > 20
    for one, two in zip(at_once, singly):
        assert torch.equal(one.index, two.index)  # type: ignore[arg-type]
        assert torch.equal(one.obs, two.obs)
        assert torch.equal(one.next_obs, two.next_obs)
