"""Later observations from the ring storage, against numbers by hand and a plain list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.core.batch import Batch
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.memories import journal
from coach.memories.replay import Replay
from coach.memories.stripes import Stripes
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import World

SPEC = Spec(
    spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (4, 5, 5), np.uint8),
            "measurements": spaces.Box(-1, 1, (2,)),
        }
    ),
    spaces.Discrete(3),
)
KEY = "measurements"


def wanted(world: World, env: int, number: int, offset: int) -> tuple[Any, bool, bool]:
    """What was measured, whether it is known, whether it stands behind a terminal state."""
    rows = world.rows[env]
    for steps in range(1, offset + 1):
        row = rows[number + steps - 1]
        if steps == offset:
            return row.next_obs[KEY], True, False
        if row.boundary or number + steps == len(rows):
            break
    return row.next_obs[KEY], False, row.boundary and row.terminated


def check(stripes: Stripes, world: World, offsets: tuple[int, ...]) -> None:
    """Of every transition held, in an order that mixes environments."""
    oldest = stripes.written - stripes.counts
    held = [(env, oldest[env] + n) for n in range(stripes.held) for env in range(world.num_envs)]
    held = [(env, number) for env, number in held if number < stripes.written[env]]
    index = torch.tensor([env * stripes.rows + number % stripes.rows for env, number in held])
    extras = stripes.future(index, KEY, offsets)
    assert extras["future"].shape == (len(held), len(offsets), 2)
    for place, (env, number) in enumerate(held):
        for column, offset in enumerate(offsets):
            value, known, over = wanted(world, env, int(number), offset)
            assert extras["future"][place, column].tolist() == value.tolist()
            assert bool(extras["future_known"][place, column]) == known
            assert bool(extras["future_over"][place, column]) == over


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
    st.sets(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(0, 10_000),
)
def test_what_was_measured_later_is_found(
    envs: int, fragments: list[int], offsets: set[int], seed: int
) -> None:
    world, stripes = World(SPEC, envs, seed), Stripes(SPEC, envs, capacity=8 * envs)
    for steps in fragments:  # the ring of 8 is passed several times
        stripes.write(world.fragment(steps))
        check(stripes, world, tuple(sorted(offsets)))


def test_the_same_is_found_after_a_way_to_disk_and_back() -> None:
    world, stripes = World(SPEC, 2, 5), Stripes(SPEC, 2, capacity=16)
    stripes.write(world.fragment(7))
    stripes.write(world.fragment(6))
    again = Stripes(SPEC, 2, capacity=16)
    journal.load_rows(again, journal.rows_since(stripes, [])[0])
    journal.load_state_dict(again, journal.state_dict(stripes))
    check(again, world, (1, 3, 9))


PLAIN = Spec(spaces.Dict({KEY: spaces.Box(0, 100, (1,))}), spaces.Discrete(2))


def fragment(measured: list[float], then: list[float], ends: str, continues: bool = True) -> Batch:
    """Steps of one environment: "." goes on, "T" is terminal, "L" a time limit."""
    count = len(ends)
    return Batch(
        obs={KEY: torch.tensor(measured).view(count, 1, 1)},
        action=torch.zeros(count, 1, dtype=torch.int64),
        reward=torch.zeros(count, 1),
        discount=torch.tensor([float(end != "T") for end in ends]).view(count, 1),
        next_obs={KEY: torch.tensor(then).view(count, 1, 1)},
        boundary=torch.tensor([end != "." for end in ends]).view(count, 1),
        env_ids=torch.arange(1),
        continues=continues,
    )


def future(stripes: Stripes, index: list[int], offsets: tuple[int, ...]) -> list[list[str]]:
    """Numbers, with "?" behind what is unknown and "T" behind what a terminal state left."""
    extras = stripes.future(torch.tensor(index), KEY, offsets)
    return [
        [
            f"{value[0]:g}{'' if known else 'T' if over else '?'}"
            for value, known, over in zip(*(extras[k][row].tolist() for k in extras))
        ]
        for row in range(len(index))
    ]


def test_by_hand_behind_a_terminal_state_a_time_limit_and_the_newest_step() -> None:
    stripes = Stripes(PLAIN, 1, capacity=20)
    stripes.write(fragment([0, 1, 2, 10, 11, 20, 21], [1, 2, 3, 11, 12, 21, 22], "..T.L.."))
    assert future(stripes, [0, 1, 2], (1, 2, 3, 4)) == [
        ["1", "2", "3", "3T"],
        ["2", "3", "3T", "3T"],
        ["3", "3T", "3T", "3T"],
    ]
    assert future(stripes, [3, 4], (1, 2, 4)) == [["11", "12", "12?"], ["12", "12?", "12?"]]
    assert future(stripes, [5, 6], (1, 2, 4)) == [["21", "22", "22?"], ["22", "22?", "22?"]]
    stripes.write(fragment([22], [23], "T"))
    assert future(stripes, [5, 6, 7], (1, 2, 4)) == [
        ["21", "22", "23T"],
        ["22", "23", "23T"],
        ["23", "23T", "23T"],
    ]


def test_an_episode_that_was_given_up_is_known_up_to_there() -> None:
    stripes = Stripes(PLAIN, 1, capacity=20)
    stripes.write(fragment([0, 1], [1, 2], ".."))
    stripes.write(fragment([50, 51], [51, 52], "..", continues=False))
    assert future(stripes, [0, 1, 2], (1, 2, 3)) == [
        ["1", "2", "2?"],
        ["2", "2?", "2?"],
        ["51", "52", "52?"],
    ]


def test_by_hand_across_the_seam_of_the_ring() -> None:
    stripes = Stripes(PLAIN, 1, capacity=4)  # five rows: the observation to come has one as well
    stripes.write(fragment([0, 1, 2, 3], [1, 2, 3, 4], "...."))
    stripes.write(fragment([4, 5], [5, 6], ".T"))
    assert stripes.rows == 5
    assert future(stripes, [3, 4, 0], (1, 2, 3, 4)) == [
        ["4", "5", "6", "6T"],
        ["5", "6", "6T", "6T"],
        ["6", "6T", "6T", "6T"],
    ]


def replay(**options: Any) -> Replay:
    small = {"capacity": 60, "batch_size": 8, "warmup": 8, "updates_per_step": 0.5}
    return Replay(SPEC, 2, 0, **small, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["uniform", "prioritized"])
def test_minibatches_bring_the_future_of_their_own_rows(sampler: str) -> None:
    offsets = (1, 4, 7)
    held = replay(
        future_offsets=offsets,
        future_key=KEY,
        sampler=build_part("sampler", sampler, "sampler").value,
    )
    world = World(SPEC, 2, 3)
    seen = 0
    for _ in range(6):
        held.write(world.fragment(5))
        for batch in held.batches(lambda batch: batch):
            alone = held.stripes.future(batch.index, KEY, offsets)
            assert set(alone) <= set(batch.extras)
            for name, value in alone.items():
                assert torch.equal(batch.extras[name], value)
                assert len(value) == 8
            seen += 1
    assert seen > 10


def test_nothing_is_looked_up_that_nobody_asked_for() -> None:
    held, world = replay(), World(SPEC, 2, 3)
    held.write(world.fragment(12))
    (batch, *_) = held.batches(lambda batch: batch)
    assert not batch.extras
