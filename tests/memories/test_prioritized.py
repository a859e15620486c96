"""Drawing in proportion to priorities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coach.functional.schedules import Linear
from coach.memories import sum_tree
from coach.memories.replay import Replay
from coach.memories.samplers.prioritized import Prioritized
from coach.memories.stripes import look_up
from coach.memories.sum_tree import FANOUT, SumTree
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import SPECS, World
from scipy import stats

SPEC = SPECS["vector"]


@pytest.mark.parametrize("size", [1, 15, 16, 17, 256, 257, 5_000])
def test_frequencies_match_the_masses(size: int) -> None:
    rng = np.random.default_rng(size)
    mass = rng.exponential(size=size)
    mass[rng.random(size) < 0.2] = 0.0
    mass[0] = 1.0
    tree = SumTree(size)
    tree[np.arange(size)] = mass
    draws = 400 * size if size > 100 else 40_000
    drawn = tree.find(rng.random(draws) * tree.total)
    counts = np.bincount(drawn, minlength=size)
    assert (counts[mass == 0] == 0).all()
    there = mass > 0
    if there.sum() > 1:
        expected = mass[there] / mass.sum() * draws
        enough = expected > 5
        got = np.append(counts[there][enough], counts[there][~enough].sum())
        want = np.append(expected[enough], expected[~enough].sum())
        keep = want > 0
        assert stats.chisquare(got[keep], want[keep]).pvalue > 1e-4


def test_find_by_hand() -> None:
    tree = SumTree(40)
    tree[np.array([3, 20, 39])] = np.array([1.0, 2.0, 4.0])
    assert tree.total == 7.0
    asked = np.array([0.0, 0.99, 1.0, 2.99, 3.0, 6.99])
    assert tree.find(asked).tolist() == [3, 3, 20, 20, 39, 39]
    # Rounding may ask for the total itself: the last leaf with mass answers.
    assert tree.find(np.array([7.0])).tolist() == [39]


def test_sums_are_exact_after_a_million_updates() -> None:
    rng = np.random.default_rng(0)
    tree = SumTree(20_000)
    for _ in range(250):
        tree[rng.integers(0, 20_000, 4_000)] = rng.exponential(size=4_000) * 10.0 ** rng.integers(
            -6, 6
        )
    fresh = SumTree(20_000)
    fresh.load(tree.levels[0][:20_000])
    for level, wanted in zip(tree.levels, fresh.levels):
        assert np.array_equal(level, wanted)
    assert all(len(level) % FANOUT == 0 for level in tree.levels)


def memory(sampler: Prioritized, fragment: int = 50) -> Replay:
    built = Replay(
        SPEC, 1, capacity=100, batch_size=32, warmup=0, updates_per_step=1, sampler=sampler
    )
    built.write(World(SPEC, 1, 0).fragment(fragment))
    return built


def test_empirical_frequencies_and_weights_match_the_paper() -> None:
    sampler = Prioritized(alpha=0.7, beta=0.5, epsilon=1e-6)
    replay = memory(sampler)
    priority = torch.linspace(0.1, 5, 50)
    sampler.feedback(torch.arange(50), priority)
    share = (priority.double() + 1e-6) ** 0.7
    share = (share / share.sum()).numpy()
    rng, counts = torch.Generator().manual_seed(0), np.zeros(50)
    for _ in range(1_000):
        index, weight = sampler.draw(replay.stripes, 32, 0, rng)
        assert weight is not None
        wanted = (50 * share[index]) ** -0.5
        assert weight.numpy() == pytest.approx(wanted / wanted.max(), rel=1e-5)
        counts += np.bincount(index, minlength=50)
    # Stratified draws vary less than independent ones, so the statistic can only be smaller.
    assert stats.chisquare(counts, share * 32_000).pvalue > 1e-3


def test_new_transitions_enter_with_the_largest_priority() -> None:
    sampler = Prioritized(alpha=1.0, epsilon=1e-9)
    replay = memory(sampler, 10)
    assert sampler.tree[np.arange(10)] == pytest.approx(np.ones(10))
    sampler.feedback(torch.tensor([4]), torch.tensor([7.0]))
    replay.write(World(SPEC, 1, 1).fragment(1))
    assert sampler.tree[np.array([10])] == pytest.approx([7.0])


def test_rows_that_are_no_transitions_are_never_drawn() -> None:
    sampler = Prioritized()
    replay = memory(sampler, 50)
    world = World(SPEC, 1, 1)
    rng = torch.Generator().manual_seed(0)
    for _ in range(40):
        replay.write(world.fragment(7))
        index, _ = sampler.draw(replay.stripes, 64, 0, rng)
        behind = int(replay.stripes.written[0]) % replay.stripes.rows
        assert behind not in index.tolist()
        held = min(int(replay.stripes.written[0]), 100)
        assert (sampler.tree.levels[0] > 0).sum() == held


def test_beta_follows_its_schedule() -> None:
    sampler = Prioritized(beta=Linear(0.0, 1.0, 100))
    replay = memory(sampler)
    sampler.feedback(torch.arange(50), torch.linspace(0.1, 5, 50))
    rng = torch.Generator().manual_seed(0)
    _, none = sampler.draw(replay.stripes, 32, 0, rng)
    _, full = sampler.draw(replay.stripes, 32, 100, rng)
    assert none is not None
    assert full is not None
    assert (none == 1).all()
    assert full.min() < 0.5
    assert sampler.monitor(50)["beta"] == 0.5


def test_feedback_moves_the_draw() -> None:
    replay = memory(Prioritized(alpha=1.0))
    for batch in replay.batches(lambda b: b):
        replay.feedback(batch, torch.full((32,), 1e-6))
    assert isinstance(replay.sampler, Prioritized)
    replay.sampler.feedback(torch.tensor([13]), torch.tensor([1e6]))
    index, _ = replay.sampler.draw(replay.stripes, 32, 0, torch.Generator().manual_seed(0))
    assert set(index.tolist()) == {13}


@pytest.mark.parametrize("size", [1, 17, 5_000])
def test_compiled_loops_give_the_bits_of_vectorised_ones(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(size)
    rounds = [(rng.integers(0, size, 64), rng.exponential(size=64)) for _ in range(20)]
    places = rng.random((20, 300))

    def run() -> list[np.ndarray]:
        tree, found = SumTree(size), []
        tree[np.arange(size)] = 0.5
        for (index, mass), place in zip(rounds, places):
            tree[index] = mass
            tree[index[:3]] = 0.0
            tree[np.array([0])] = 1.0  # there must be something to find
            found += [tree.find(place * tree.total), *[level.copy() for level in tree.levels]]
            index, mass, total = tree.stratified(place)
            assert index.tolist() == tree.find((np.arange(300) + place) * (total / 300)).tolist()
            assert total == tree.total
            found += [index, mass]
        return found

    fast = run()
    assert sum_tree.compiled is not None
    monkeypatch.setattr(sum_tree, "compiled", None)
    for one, other in zip(fast, run()):
        assert np.array_equal(one, other)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(2, 9), st.floats(0, 1), st.integers(0, 10_000))
def test_compiled_look_up_gives_the_bits_of_the_vectorised_one(
    stripes: int, rows: int, gamma: float, seed: int
) -> None:
    pytest.importorskip("numba")
    assert sum_tree.compiled is not None
    rng = np.random.default_rng(seed)
    outcomes = rng.normal(size=(stripes * rows, 3)).astype(np.float32)
    outcomes[:, 1:] = outcomes[:, 1:] > 0
    index = rng.integers(0, stripes * rows, 20)
    for one, other in zip(
        look_up(outcomes, index, rows, gamma),
        sum_tree.compiled.look_up(outcomes, index, rows, gamma),
    ):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
