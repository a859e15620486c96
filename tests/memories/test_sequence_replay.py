"""Replay of sequences against a list of steps: what is handed out, how often, and after a resume."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from coach.core.batch import Batch, map_tree
from coach.core.errors import SettingError
from coach.functional.priorities import priority_mass, sequence_priority
from coach.memories.sampler import Sampler
from coach.memories.samplers.balanced import Balanced
from coach.memories.samplers.episodic import Episodic
from coach.memories.samplers.prioritized import Prioritized
from coach.memories.samplers.uniform import Uniform
from coach.memories.sequence_replay import SequenceReplay
from coach.runners.storage import pack, split_state, unpack
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import SPECS, World, same
from scipy import stats

GAMMA = 0.9


class Walk(World):
    """Fragments whose state tells where they begin: environment and step, in nested tensors."""

    def fragment(self, steps: int) -> Batch:
        begin = len(self.rows[0])
        where = torch.tensor([[env, begin] for env in range(self.num_envs)]).float()
        state = {"policy.x": {"hidden": where, "cell": where[:, 1]}, "value": where + 0.5}
        return replace(super().fragment(steps), state=state)


def memory(spec: str = "vector", envs: int = 2, **options: Any) -> SequenceReplay:
    chosen = {
        "capacity": 60 * envs,
        "batch_size": 8,
        "length": 6,
        "burn_in": 2,
        "overlap": 3,
        "warmup": 0,
        "updates_per_step": 0.25,
        "discount": GAMMA,
    }
    return SequenceReplay(SPECS[spec], envs, sequences=True, **{**chosen, **options})


def drawn(held: SequenceReplay) -> list[Batch]:
    return list(held.batches(lambda batch: batch))


def everything(held: SequenceReplay) -> Batch:
    """All sequences that can be drawn, as one minibatch; the number of each is its index."""
    store = held.store
    index = torch.tensor(
        [
            env * store.rows + number % store.rows
            for env in range(store.num_envs)
            for number in range(store.first[env], store.first[env] + store.counts[env])
        ]
    )
    batch = held.stripes.gather(store.steps_of(index), GAMMA, 1)
    state = store.states_of(index)
    return replace(batch, state=state, length=store.length, index=index.repeat(store.length))


def check(batch: Batch, world: World) -> set[tuple[int, int]]:
    """Every row is what happened; returns environment and first step of every sequence."""
    found = set()
    columns = len(batch) // batch.length
    for m in range(columns):
        env, begin = (int(x) for x in batch.state["policy.x"]["hidden"][m])
        assert batch.state["policy.x"]["cell"][m] == begin
        assert batch.state["value"][m].tolist() == [env + 0.5, begin + 0.5]
        found.add((env, begin))
        for t in range(batch.length):
            row, wanted = batch[t * columns + m], world.wanted(env, begin + t, 1, GAMMA)
            for name in ("obs", "action", "next_obs"):
                assert same(map_tree(lambda x: x.numpy(), getattr(row, name)), wanted[name]), name
            assert row.reward.item() == np.float32(wanted["reward"])
            assert row.discount.item() == pytest.approx(wanted["discount"])
            assert bool(row.boundary) == wanted["boundary"]
    return found


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("overlap", [0, 3, 4])
def test_sequences_are_what_happened(spec: str, overlap: int) -> None:
    world, held = Walk(SPECS[spec], 2, seed=1), memory(spec, overlap=overlap)
    apart = 6 - overlap
    for number in range(200 // apart):
        held.write(world.fragment(apart))
        for batch in drawn(held):
            if number % 5 == 0:
                check(batch, world)
    written = 200 // apart * apart
    oldest = written - 60
    wanted = {
        (env, begin)
        for env in range(2)
        for begin in range(0, written, apart)
        if begin >= oldest and begin + 6 <= written
    }
    assert check(everything(held), world) == wanted


@settings(max_examples=30)
@given(
    length=st.integers(1, 9),
    capacity=st.integers(9, 40),
    envs=st.integers(1, 3),
    data=st.data(),
)
def test_any_shape_of_sequences_and_fragments(
    length: int, capacity: int, envs: int, data: st.DataObject
) -> None:
    apart = data.draw(st.integers(1, length))
    pieces = [n for n in range(1, apart + 1) if apart % n == 0]
    fragment = data.draw(st.sampled_from(pieces))
    sampler = data.draw(st.sampled_from([Uniform, Prioritized]))()
    held = memory(
        envs=envs,
        capacity=capacity * envs,
        length=length,
        burn_in=0,
        overlap=length - apart,
        sampler=sampler,
    )
    held.check_fragments(fragment)
    world = Walk(SPECS["vector"], envs, seed=length)
    for number in range(-(-3 * capacity // fragment)):
        held.write(world.fragment(fragment))
        found = drawn(held)
        if found and number % 8 == 0:
            check(found[0], world)
    written = len(world.rows[0])
    wanted = {
        (env, begin)
        for env in range(envs)
        for begin in range(0, written, apart)
        if begin >= written - capacity and begin + length <= written
    }
    if wanted:
        assert check(everything(held), world) == wanted
    if isinstance(sampler, Prioritized):  # nothing else can be drawn
        mass = sampler.tree.levels[0][: held.store.size]
        index = everything(held).index if wanted else torch.zeros(0, dtype=torch.int64)
        assert index is not None
        assert set(mass.nonzero()[0].tolist()) == set(index.tolist())


@pytest.mark.parametrize("steps", [1, 5, 7, 25, 60])
def test_without_states_fragments_may_have_any_length(steps: int) -> None:
    world, held = World(SPECS["vector"], 2, seed=0), memory()
    for _ in range(-(-130 // steps)):
        held.write(world.fragment(steps))
    batch = everything(held)
    assert batch.state is None
    begins = [k for k in range(0, 999, 3) if len(world.rows[0]) - 60 <= k <= len(world.rows[0]) - 6]
    columns = len(batch) // 6
    assert columns == 2 * len(begins)
    for m in range(columns):
        wanted = world.wanted(m // len(begins), begins[m % len(begins)], 1, GAMMA)
        assert same(batch.obs[m].numpy(), wanted["obs"])


@pytest.mark.parametrize("steps", [2, 6, 60])
def test_fragments_that_hide_a_state_are_refused(steps: int) -> None:
    held = memory()
    with pytest.raises(SettingError, match=r"run\.fragment_length.*every 3 steps") as raised:
        held.check_fragments(steps)
    assert "let it divide 3" in raised.value.remedy
    world = Walk(SPECS["vector"], 2, seed=0)
    held.write(world.fragment(2 if steps == 2 else 3))
    with pytest.raises(SettingError, match=r"run\.fragment_length"):
        held.write(world.fragment(steps))
    assert held.stripes.written.tolist() == [2 if steps == 2 else 3] * 2  # nothing of it is kept
    feedforward = SequenceReplay(SPECS["vector"], 2, capacity=120)
    feedforward.check_fragments(steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"burn_in": 6}, ["burn_in", "6 steps leave nothing"]),
        ({"overlap": 7}, ["overlap", "7 steps leave nothing"]),
        ({"capacity": 11}, ["capacity", "6 per environment"]),
        ({"capacity": 10}, ["capacity", "5 per environment", "at least 12"]),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], words: list[str]) -> None:
    if options == {"capacity": 11}:  # rounded up, so it is just enough
        memory(**options)
        return
    with pytest.raises(SettingError) as raised:
        memory(**options)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("sampler", [Balanced(), Episodic()])
def test_samplers_that_go_by_single_steps_are_refused(sampler: Sampler) -> None:
    with pytest.raises(SettingError, match=r"sampler: '(balanced|episodic)' goes by single steps"):
        memory(sampler=sampler)


@pytest.mark.parametrize("fragment", [1, 3])
def test_it_owes_what_it_states(fragment: int) -> None:
    held = memory(warmup=20, updates_per_step=0.3)
    world = Walk(SPECS["vector"], 2, seed=0)
    made = 0
    for _ in range(90 // fragment):
        held.write(world.fragment(fragment))
        made += len(drawn(held))
        assert made == max(0, int((held.env_steps - 20) * 0.3 + 1e-6))
    assert made == 48


def test_updates_stay_owed_until_a_sequence_is_complete() -> None:
    held, world = memory(updates_per_step=0.5), Walk(SPECS["vector"], 2, seed=0)
    held.write(world.fragment(3))
    assert not drawn(held)
    held.write(world.fragment(3))
    assert len(drawn(held)) == 6
    assert not drawn(held)


def test_a_free_learner_gets_more() -> None:
    held, world = memory(), Walk(SPECS["vector"], 2, seed=0)
    left = iter([True, True, False])
    assert not list(held.batches(lambda batch: batch, lambda: True))
    held.write(world.fragment(3))
    held.write(world.fragment(3))
    assert len(list(held.batches(lambda batch: batch, lambda: next(left)))) == 3 + 2


def test_every_sequence_is_equally_likely() -> None:
    world = Walk(SPECS["vector"], 3, seed=0)
    held = memory(envs=3, batch_size=30)
    for _ in range(40):
        held.write(world.fragment(3))
    counts: dict[tuple[float, ...], int] = {}
    for batch in drawn(held):
        for begin in batch.state["policy.x"]["hidden"].tolist():
            counts[tuple(begin)] = counts.get(tuple(begin), 0) + 1
    assert len(counts) == 3 * 19
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_burn_in_weighs_nothing() -> None:
    held, world = memory(), Walk(SPECS["vector"], 2, seed=0)
    for _ in range(2):
        held.write(world.fragment(3))
    (batch, *_) = drawn(held)
    assert batch.weight is not None
    assert batch.weight.view(6, 8).tolist() == [[0.0] * 8] * 2 + [[1.0] * 8] * 4
    plain = memory(burn_in=0)
    plain.write(world.fragment(3)), plain.write(world.fragment(3))
    assert drawn(plain)[0].weight is None


@pytest.mark.parametrize(
    ("error", "eta", "wanted"),
    [
        ([[1.0, 0.0], [3.0, 2.0]], 0.9, [0.9 * 3 + 0.1 * 2, 0.9 * 2 + 0.1 * 1]),
        ([[1.0, 0.0], [3.0, 2.0]], 0.0, [2.0, 1.0]),
        ([[-1.0, 0.0], [-3.0, 2.0]], 1.0, [3.0, 2.0]),
    ],
)
def test_priority_of_a_sequence(error: list[Any], eta: float, wanted: list[float]) -> None:
    found = sequence_priority(torch.tensor(error), eta)
    torch.testing.assert_close(found, torch.tensor(wanted))


@pytest.mark.parametrize("cut", [False, True])
def test_errors_become_the_sequences_priority(cut: bool) -> None:
    """Whether the agent keeps the rows of the burn-in or cuts them off, they do not count."""
    sampler = Prioritized(alpha=0.7, epsilon=0.01)
    held, world = memory(sampler=sampler, eta=0.8), Walk(SPECS["vector"], 2, seed=0)
    for _ in range(8):
        held.write(world.fragment(3))
    batch = drawn(held)[0]
    error = torch.arange(48.0) + 1
    error[:16] = 1e6
    rows = slice(16, None) if cut else slice(None)
    held.feedback(replace(batch[rows], length=4 if cut else 6), error[rows])
    assert batch.index is not None
    for m in range(8):
        index = batch.index[m].item()
        if index in batch.index[m + 1 : 8].tolist():
            continue  # drawn twice: the later one counts
        mine = error.view(6, 8)[2:, m].double().numpy()
        wanted = 0.8 * mine.max() + 0.2 * mine.mean()
        (found,) = sampler.tree[np.array([index])]
        assert found == pytest.approx((wanted + 0.01) ** 0.7, rel=1e-6)
    assert sampler.largest == pytest.approx(0.8 * 48 + 0.2 * 36)
    held.feedback(batch, None)  # an agent without priorities changes nothing


def test_sequences_are_drawn_in_proportion_and_weighed_back() -> None:
    sampler = Prioritized(alpha=0.5, beta=1.0, epsilon=1e-6)
    held = memory(envs=1, sampler=sampler, batch_size=20, burn_in=1)
    world = Walk(SPECS["vector"], 1, seed=0)
    for _ in range(11):
        held.write(world.fragment(3))
    index = everything(held).index
    assert index is not None
    index = index[:10]
    priority = torch.linspace(0.5, 4, 10)
    sampler.feedback(index, priority)
    share = priority_mass(priority.double().numpy(), 0.5, 1e-6)
    share /= share.sum()
    counts = np.zeros(10)
    for batch in islice(held.batches(lambda batch: batch, lambda: True), 400):
        assert batch.index is not None
        assert batch.weight is not None
        place = [index.tolist().index(i) for i in batch.index[:20].tolist()]
        np.add.at(counts, place, 1)
        wanted = 1 / (10 * share[place])
        rows = batch.weight.view(6, 20)
        torch.testing.assert_close(rows[0], torch.zeros(20))
        for t in range(1, 6):
            np.testing.assert_allclose(rows[t].numpy(), wanted / wanted.max(), rtol=1e-5)
    assert stats.chisquare(counts, 8_000 * share).pvalue > 1e-3


def test_new_sequences_enter_with_the_largest_priority() -> None:
    sampler = Prioritized(alpha=1.0)
    held, world = memory(envs=1, sampler=sampler), Walk(SPECS["vector"], 1, seed=0)
    held.write(world.fragment(3)), held.write(world.fragment(3))
    sampler.feedback(torch.tensor([0]), torch.tensor([7.0]))
    held.write(world.fragment(3))
    mass = sampler.tree.levels[0]
    assert mass[:3].tolist() == pytest.approx([7.0, 7.0, 0.0])


def test_given_up_episodes_end_where_they_stood() -> None:
    held, world = memory(), Walk(SPECS["vector"], 2, seed=0)
    held.write(world.fragment(3))
    held.write(replace(world.fragment(3), continues=False))
    batch = everything(held)
    boundary = batch.boundary.view(6, 2)
    assert boundary[2].all()
    ended = world.rows[0][2].boundary
    if not ended:  # cut off, not terminal
        assert batch.discount.view(6, 2)[2, 0] == pytest.approx(GAMMA)


def test_it_can_be_divided() -> None:
    whole = {"capacity": 101, "batch_size": 32, "warmup": 40, "updates_per_step": 0.25}
    together = memory().divided(whole, 4, together=True)
    assert together == {"capacity": 26, "batch_size": 8, "warmup": 10, "updates_per_step": 1.0}
    alone = memory().divided(whole, 4, together=False)
    assert alone == {"capacity": 26, "batch_size": 32, "warmup": 10, "updates_per_step": 0.25}
    with pytest.raises(SettingError, match="batch_size"):
        memory().divided({**whole, "batch_size": 30}, 4, together=True)


def same_batches(one: Batch, two: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.tensors(), two.tensors()))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("sampler", [Uniform, Prioritized])
@pytest.mark.parametrize("chunks", [(4, 1, 3), (3, 30, 17)])
def test_it_goes_on_where_it_was(spec: str, sampler: type[Any], chunks: tuple[int, ...]) -> None:
    """Rows written to disk in pieces, between which the ring may have been overwritten."""

    def learn(held: SequenceReplay) -> list[Batch]:
        found = []
        for batch in held.batches(lambda batch: batch):
            priority = (batch.reward.abs() + 0.1).clone()
            held.feedback(batch, priority)
            found.append(batch.clone())
        return found

    options = {"capacity": 60, "sampler": sampler(), "batch_size": 3}
    world, held = Walk(SPECS[spec], 2, seed=3), memory(spec, **options)
    saved: list[int] = []
    journal = []
    for count in chunks:
        for _ in range(count):
            held.write(world.fragment(3))
            learn(held)
        assert held.pending_bytes(saved) > 0
        rows, saved = held.rows(saved)
        assert held.pending_bytes(saved) == 0
        journal.append(pack(rows))
    tensors, values = split_state(held.state_dict())
    again = memory(spec, **{**options, "sampler": sampler()})
    for chunk in journal:
        again.load_rows(unpack(chunk))
    again.load_state_dict({**values, **unpack(pack(tensors))})
    assert same_batches(everything(again), everything(held))
    assert again.oldest() == held.oldest()
    check(everything(again), world)
    for _ in range(12):
        fragment = world.fragment(3)
        held.write(fragment), again.write(fragment)
        ours, theirs = learn(held), learn(again)
        assert len(ours) == len(theirs) > 0
        assert all(map(same_batches, ours, theirs))
    assert str(held.state_dict()) == str(again.state_dict())


def test_another_ratio_counts_from_here_on() -> None:
    held, world = memory(), Walk(SPECS["vector"], 2, seed=0)
    for _ in range(6):
        held.write(world.fragment(3))
        drawn(held)
    rows, _ = held.rows([])
    again = memory(updates_per_step=1.0)
    again.load_rows(rows)
    again.load_state_dict(held.state_dict())
    assert not drawn(again)
    again.write(world.fragment(3))
    assert len(drawn(again)) == 6


def test_what_is_logged() -> None:
    held, world = memory(), Walk(SPECS["vector"], 2, seed=0)
    held.write(world.fragment(3)), held.write(world.fragment(3))
    assert held.monitor() == {"fill": 0.1}
    drawn(held)
    assert held.monitor()["age"] == pytest.approx(2.5)  # the only sequence: 0 to 5 steps old
