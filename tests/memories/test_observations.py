"""Stacks of pictures come out as they went in, while only their newest pictures are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.core.batch import Batch
from coach.core.spec import Spec
from coach.memories.observations import PlainRows, StackedRows, expected_bytes, ring_for, unpacked
from coach.memories.replay import Replay
from coach.memories.sampler import Sampler
from coach.memories.samplers.prioritized import Prioritized
from coach.memories.samplers.uniform import Uniform
from coach.memories.stripes import Stripes
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import SPECS, World
from numpy.typing import NDArray

SHAPE, ROWS = (3, 4, 4), 9
HELD = ROWS - (SHAPE[0] - 1)  # the oldest rows of a full ring have lost their older pictures


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, SHAPE[1:], np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=15),
    st.integers(1, 2),
    st.integers(0, 1000),
)
def test_whatever_is_put_is_taken(blocks: list[tuple[int, int]], envs: int, seed: int) -> None:
    """Stacks that move on, that begin anew, and that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    ring = StackedRows(SHAPE, envs, ROWS)
    kept: list[NDArray[np.uint8]] = []  # [N, K, H, W] of every position
    stack = rng.integers(0, 256, (envs, *SHAPE), np.uint8)
    for steps, kind in blocks:
        block = []
        for _ in range(steps):
            for env in range(envs):
                if kind == 3 or rng.random() < 0.2:
                    stack[env] = rng.integers(0, 256, SHAPE, np.uint8)
                elif kind == 2 and rng.random() < 0.3:
                    stack[env] = picture(rng)  # repeated, as at the start of an episode
                else:
                    stack[env] = np.concatenate([stack[env, 1:], picture(rng)[None]])
            block.append(stack.copy())
        rows = (len(kept) + np.arange(steps)) % ROWS
        ring.put(slice(0, envs), rows, np.stack(block, 1))
        kept += block
        positions = np.arange(max(0, len(kept) - HELD), len(kept))
        for env in range(envs):
            taken = ring.take(env * ROWS + positions % ROWS)
            expected = np.stack([kept[p][env] for p in positions])
            assert np.array_equal(taken, expected)
            places = env * ROWS + positions % ROWS
            for ahead in (1, 2):
                apart = [slice(at, at + 1) for at in range(len(positions) - ahead)]
                for some in (*apart, slice(0, len(apart))):
                    check_both(ring, places, expected, some, ahead, rng)
        both_rings = np.concatenate([env * ROWS + positions % ROWS for env in range(envs)])
        first = np.isin(np.arange(len(both_rings)), [0, len(positions)])
        saved = ring.saved(both_rings, first)
        assert np.array_equal(unpacked(saved), ring.take(both_rings))


def check_both(
    ring: StackedRows,
    places: NDArray[np.int64],
    expected: NDArray[np.uint8],
    some: slice,
    ahead: int,
    rng: np.random.Generator,
) -> None:
    """Observations and those ``ahead`` of them, with and without an episode's end in between."""
    index, behind = places[:-ahead][some], places[ahead:][some]
    obs, after = expected[:-ahead][some], expected[ahead:][some]
    nothing = np.empty((0, *SHAPE), np.uint8)
    for ended in (np.arange(0), np.arange(0, len(index), 2)):
        finals = rng.integers(0, 256, (len(ended), *SHAPE), np.uint8)
        if rng.random() < 0.5:  # a last observation that moves on from the one before
            finals[:, :-1] = obs[ended][:, 1:]
        wanted = after.copy()
        wanted[ended] = finals
        found = ring.both(index, behind, ended, finals if len(ended) else nothing)
        assert np.array_equal(found[0], obs)
        assert np.array_equal(found[1], wanted)


def test_a_row_that_is_written_again_counts() -> None:
    rng = np.random.default_rng(0)
    ring = StackedRows(SHAPE, 1, ROWS)
    first, other = rng.integers(0, 256, (2, *SHAPE), np.uint8)
    ring.put(slice(0, 1), np.array([0]), first[None, None])
    coming = np.concatenate([first[1:], picture(rng)[None]])
    for value in (coming, other, coming):
        ring.put(slice(0, 1), np.array([1]), value[None, None])
        assert np.array_equal(ring.take(np.array([0, 1])), [first, value])


def test_what_is_saved_of_stacks_that_move_on_is_a_picture_each() -> None:
    rng = np.random.default_rng(0)
    ring = StackedRows(SHAPE, 1, ROWS)
    pictures = rng.integers(0, 256, (8, *SHAPE[1:]), np.uint8)
    stacks = np.stack([pictures[n : n + 3] for n in range(6)])[None]
    ring.put(slice(0, 1), np.arange(6), stacks)
    first = np.arange(6) == 0
    saved = ring.saved(np.arange(6), first)
    assert saved["#newest"].shape == (6, 4, 4)
    assert saved["#older"].shape == (1, 2, 4, 4)
    assert saved["#newest"].nbytes // 6 < ring.saved_bytes <= 4 * 4 + 8


def test_the_form_follows_what_is_seen() -> None:
    layout, rng = (SHAPE, torch.uint8), np.random.default_rng(0)
    before = rng.integers(0, 256, (6, *SHAPE), np.uint8)
    after = np.concatenate([before[:, 1:], before[:, :1]], 1)
    assert isinstance(ring_for(layout, 1, ROWS, before, after), StackedRows)
    assert isinstance(ring_for(layout, 1, ROWS, before, before), PlainRows)
    vector = ((3,), torch.float32)
    assert isinstance(ring_for(vector, 1, ROWS, before, after), PlainRows)


def test_a_stack_costs_one_picture() -> None:
    assert expected_bytes(((4, 84, 84), torch.uint8)) < 1.01 * 84 * 84
    stripes, world = Stripes(SPECS["stack"], 1, 1_000), World(SPECS["stack"], 1, 0)
    stripes.write(world.fragment(8))
    assert isinstance(stripes.ring, StackedRows)
    assert stripes.ring.nbytes == (1_000 + 1 + 3) * (25 + 5)


@pytest.mark.parametrize("steps", [1, 3])
def test_rows_that_are_too_old_are_reported(steps: int) -> None:
    stripes, world = Stripes(SPECS["stack"], 2, 16), World(SPECS["stack"], 2, 0)
    held: set[int] = set()
    for _ in range(20):
        added, dropped = stripes.write(world.fragment(steps))
        held = (held | set(added.tolist())) - set(dropped.tolist())
        assert len(held) == int(stripes.counts.sum())


def bytes_within(holder: Any, seen: set[int]) -> int:
    """Of all arrays and tensors that an object holds, memory that is shared counted once."""
    if isinstance(holder, (np.ndarray, torch.Tensor)):
        tensor = torch.from_numpy(holder) if isinstance(holder, np.ndarray) else holder
        storage = tensor.untyped_storage()
        if not storage.nbytes() or storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return storage.nbytes()
    if id(holder) in seen or callable(holder):
        return 0
    seen.add(id(holder))
    if isinstance(holder, dict):
        return sum(bytes_within(value, seen) for value in holder.values())
    if isinstance(holder, (list, tuple)):
        return sum(bytes_within(value, seen) for value in holder)
    return sum(bytes_within(value, seen) for value in getattr(holder, "__dict__", {}).values())


@pytest.mark.parametrize("sampler", [Uniform, Prioritized])
def test_a_transition_of_stacked_pictures_takes_little_more_than_a_picture(
    sampler: type[Sampler],
) -> None:
    capacity, steps = 12_000, 400
    spec = Spec(spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6))
    replay = Replay(spec, 1, capacity=capacity, warmup=0, sampler=sampler())
    boundary = torch.zeros(steps, 1, dtype=torch.bool)
    boundary[-1] = True  # episodes of 400 steps: short for Atari
    for number in range(capacity // steps):
        generator = torch.Generator().manual_seed(number)
        shape = (steps + 4, 84, 84)
        pictures = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        stacks = pictures.unfold(0, 4, 1).permute(0, 3, 1, 2)[:, None]  # [T + 1, 1, 4, 84, 84]
        replay.write(
            Batch(
                obs=stacks[:-1].contiguous(),
                action=torch.zeros(steps, 1, dtype=torch.int64),
                reward=torch.zeros(steps, 1),
                discount=1 - boundary.float(),
                next_obs=stacks[1:].contiguous(),
                boundary=boundary,
                env_ids=torch.arange(1),
            )
        )
    assert int(replay.stripes.counts.sum()) == capacity
    assert bytes_within(replay, set()) / capacity <= 1.1 * 84 * 84
