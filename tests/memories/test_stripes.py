"""The ring storage against a plain list of transitions."""

from __future__ import annotations

import pytest
import torch
from coach.core.batch import map_tree
from coach.core.errors import SettingError
from coach.memories import journal
from coach.memories.stripes import Stripes
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import SPECS, World, same


def check(stripes: Stripes, world: World, n: int, gamma: float = 0.9) -> None:
    """Every transition held is the one that happened."""
    rows = [(env, row) for env, count in enumerate(stripes.counts) for row in range(count)]
    oldest = stripes.written - stripes.counts
    index = torch.tensor(
        [env * stripes.rows + (oldest[env] + row) % stripes.rows for env, row in rows]
    )
    batch = stripes.gather(index, gamma, n)
    for place, (env, row) in enumerate(rows):
        wanted = world.wanted(env, oldest[env] + row, n, gamma)
        at = map_tree(lambda leaf: leaf[place], batch.obs)  # noqa: B023
        assert same(at, wanted["obs"])
        assert same(batch.action[place], wanted["action"])
        assert batch.reward[place].item() == pytest.approx(wanted["reward"], abs=1e-5)
        assert batch.discount[place].item() == pytest.approx(wanted["discount"], abs=1e-6)
        assert bool(batch.boundary[place]) == wanted["boundary"]
        assert same(map_tree(lambda leaf: leaf[place], batch.next_obs), wanted["next_obs"])  # noqa: B023


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(SPECS)),
    st.integers(1, 3),
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(0, 10_000),
)
def test_holds_what_happened(name: str, envs: int, fragments: list[int], n: int, seed: int) -> None:
    world = World(SPECS[name], envs, seed)
    stripes = Stripes(SPECS[name], envs, capacity=8 * envs)
    for steps in fragments:
        stripes.write(world.fragment(steps))
        check(stripes, world, n)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(SPECS)),
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=12),
    st.integers(0, 10_000),
)
def test_journal_brings_everything_back(
    name: str, fragments: list[tuple[int, bool]], seed: int
) -> None:
    world = World(SPECS[name], 2, seed)
    stripes, chunks, saved = Stripes(SPECS[name], 2, capacity=16), [], []
    for steps, save in fragments:
        stripes.write(world.fragment(steps))
        if save:
            rows, saved = journal.rows_since(stripes, saved)
            chunks.append(rows)
    chunks.append(journal.rows_since(stripes, saved)[0])
    again = Stripes(SPECS[name], 2, capacity=16)
    for rows in chunks:
        journal.load_rows(again, rows)
    journal.load_state_dict(again, journal.state_dict(stripes))
    check(again, world, 3)
    more = world.fragment(3)
    stripes.write(more), again.write(more)
    check(again, world, 3)


def test_size_is_known_before_anything_is_allocated() -> None:
    spec = SPECS["image"]
    stripes = Stripes(spec, 1, capacity=1_000)
    assert not stripes.allocated
    # One row for the observation to come, one for the older picture if they should be stacked.
    assert stripes.nbytes == 1_002 * (32 + 8 + 16)
    stripes.write(World(spec, 1, 0).fragment(1))
    held = (stripes.action, stripes.outcome, stripes.finals.slot_of)
    assert sum(t.numel() * t.element_size() for t in held) + stripes.ring.nbytes == stripes.nbytes


def test_an_image_is_stored_once() -> None:
    stripes = Stripes(SPECS["image"], 1, capacity=10_000)
    image = 2 * 4 * 4
    assert stripes.nbytes / 10_000 < image + 30


def test_a_fragment_longer_than_the_ring_is_refused() -> None:
    stripes = Stripes(SPECS["vector"], 2, capacity=8)
    with pytest.raises(SettingError, match=r"memory\.capacity"):
        stripes.write(World(SPECS["vector"], 2, 0).fragment(5))


def test_what_is_written_is_a_copy() -> None:
    world, stripes = World(SPECS["vector"], 1, 0), Stripes(SPECS["vector"], 1, 8)
    fragment = world.fragment(4)
    stripes.write(fragment)
    fragment.obs.zero_(), fragment.next_obs.zero_(), fragment.reward.zero_()
    check(stripes, world, 2)


def test_final_observations_do_not_pile_up() -> None:
    world, stripes = World(SPECS["vector"], 2, 0), Stripes(SPECS["vector"], 2, 20)
    for _ in range(300):
        stripes.write(world.fragment(3))
    assert len(stripes.finals.table) <= 64
