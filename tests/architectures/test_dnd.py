"""Dictionaries of keys and values: by hand, against a plain loop, saved and restored."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.heads import dnd_q
from coach.architectures.heads.dnd_q import DNDQ, NeuralDictionary
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))


def dictionary(actions: int = 1, capacity: int = 4, width: int = 1, **settings: Any) -> NeuralDictionary:  # fmt: skip
    settings = {"neighbours": 2, "delta": 0.5, "alpha": 0.25, "tolerance": 0.1} | settings
    return NeuralDictionary(actions, capacity, width, **settings)


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers).unsqueeze(1)


def write(held: NeuralDictionary, keys: list[float], values: list[float], action: int = 0) -> None:
    held.write(column(*keys), torch.full((len(keys),), action), torch.tensor(values))


def read(held: NeuralDictionary, *keys: float) -> list[list[float]]:
    key = column(*keys)
    return held.read(key, held.find(key))[0].tolist()


def contents(held: NeuralDictionary, action: int = 0) -> dict[float, float]:
    filled = held.squares[action].isfinite()
    keys = [round(key, 5) for key in held.keys[action, filled].squeeze(-1).tolist()]
    return dict(zip(keys, held.values[action, filled].tolist()))


def test_a_value_is_the_kernels_mean_of_its_neighbours() -> None:
    held = dictionary()
    write(held, [0.0, 1.0, 5.0], [10.0, 20.0, 99.0])
    # From 0.5 both neighbours are 0.25 away, squared; from 0 one is where we are.
    near, far = 1 / (0 + 0.5), 1 / (1 + 0.5)
    wanted = [15.0, (near * 10 + far * 20) / (near + far)]
    assert read(held, 0.5, 0.0)[0] == pytest.approx(wanted)


def test_each_action_has_keys_of_its_own() -> None:
    held = dictionary(actions=3)
    write(held, [0.0, 0.0], [1.0, 2.0], action=0)
    write(held, [0.0], [7.0], action=2)
    assert read(held, 0.0) == [[pytest.approx(1.25)], [0.0], [7.0]]
    assert held.count.tolist() == [1, 0, 1]


def test_fewer_keys_than_neighbours_give_the_mean_of_those_there_are() -> None:
    held = dictionary(neighbours=4)
    assert read(held, 0.3) == [[0.0]]
    write(held, [2.0], [5.0])
    assert read(held, -7.0, 0.3) == [[5.0, 5.0]]
    write(held, [0.0], [1.0])
    assert read(held, 1.0) == [[pytest.approx(3.0)]]


def test_a_known_key_keeps_its_place_and_moves_its_value() -> None:
    held = dictionary()
    write(held, [1.0, 2.0], [8.0, 0.0])
    write(held, [1.05], [16.0])  # within 0.1 of 1
    write(held, [1.2], [3.0])  # not so
    assert contents(held) == pytest.approx({1.0: 8 + 0.25 * (16 - 8), 2.0: 0.0, 1.2: 3.0})


def test_of_several_known_keys_the_nearest_is_moved() -> None:
    held = dictionary(tolerance=0.5)
    write(held, [0.0, 0.6], [1.0, 1.0])
    write(held, [0.4], [2.0])
    assert contents(held) == pytest.approx({0.0: 1.0, 0.6: 1.25})


def test_keys_that_come_twice_in_one_write_are_one_key() -> None:
    held = dictionary()
    write(held, [3.0, 1.0, 3.0, 3.0], [4.0, 0.0, 8.0, 0.0])
    first = 4 + 0.25 * (8 - 4)  # in the order in which they came
    assert contents(held) == pytest.approx({3.0: first + 0.25 * (0 - first), 1.0: 0.0})
    write(held, [1.0, 1.0], [8.0, 8.0])
    assert contents(held)[1.0] == pytest.approx(8 * (1 - 0.75**2))


def test_a_chain_of_close_keys_is_told_apart_as_row_after_row() -> None:
    held = dictionary(tolerance=0.5)
    # 0.4 belongs to 0; 0.8 is close to 0.4, which is no key, and becomes one; 1.2 belongs to it.
    write(held, [0.0, 0.4, 0.8, 1.2], [0.0, 4.0, 8.0, 16.0])
    assert contents(held) == pytest.approx({0.0: 1.0, 0.8: 10.0})


def test_no_tolerance_takes_equal_keys_alone_for_the_same() -> None:
    held = dictionary(tolerance=0.0)
    write(held, [1000.0, 1000.0001, 1000.0], [0.0, 5.0, 4.0])
    write(held, [1000.0], [5.0])
    one, other = (round(key, 5) for key in torch.tensor([1000.0, 1000.0001]).tolist())
    assert contents(held) == pytest.approx({one: 1 + 0.25 * 4, other: 5.0})


def test_rounding_does_not_hide_a_known_key() -> None:
    """Far from the origin a matrix product tells distances badly."""
    held = dictionary(width=2, capacity=8, neighbours=4, tolerance=0.01, alpha=1.0)
    keys = 3_000 + torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1]])
    action = torch.zeros(4, dtype=torch.int64)
    held.write(keys, action, torch.arange(4.0))
    held.write(keys.flip(0), action, torch.arange(4.0))
    assert held.count.tolist() == [4]
    assert held.values[0, :4].tolist() == [3.0, 2.0, 1.0, 0.0]


def test_what_is_longest_out_of_use_makes_room() -> None:
    held = dictionary(capacity=3, neighbours=1)
    write(held, [0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    held.touch(held.find(column(0.2)))
    write(held, [2.0], [2.0])  # writing to a known key is a use as well
    write(held, [3.0], [3.0])
    assert contents(held) == {0.0: 0.0, 3.0: 3.0, 2.0: 2.0}
    write(held, [4.0, 5.0], [4.0, 5.0])
    assert contents(held) == {3.0: 3.0, 4.0: 4.0, 5.0: 5.0}


def test_what_a_write_has_found_is_not_forgotten_for_what_it_adds() -> None:
    held = dictionary(capacity=2, neighbours=1)
    write(held, [0.0, 1.0], [0.0, 0.0])
    write(held, [2.0, 0.0], [2.0, 4.0])
    assert contents(held) == {0.0: 1.0, 2.0: 2.0}


def test_more_rows_than_slots_leave_the_last() -> None:
    held = dictionary(capacity=2, neighbours=1)
    write(held, [0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert contents(held) == {4.0: 4.0, 3.0: 3.0}


def test_empty_slots_stay_unused() -> None:
    held = dictionary(capacity=4, neighbours=3)
    write(held, [1.0], [1.0])
    held.touch(held.find(column(0.0, 2.0)))
    write(held, [5.0], [5.0])
    assert held.last_use.tolist() == [[2, 3, -1, -1]]


def test_gradients_reach_the_query_and_nothing_else() -> None:
    held = dictionary()
    write(held, [0.0, 1.0], [10.0, 20.0])
    key = column(0.25).requires_grad_()
    value, _ = held.read(key, held.find(key))
    (gradient,) = torch.autograd.grad(value.sum(), [key])
    # w = 1 / (x^2 + 1/2), u = 1 / ((1 - x)^2 + 1/2), Q = (10 w + 20 u) / (w + u)
    w, u = 1 / (0.0625 + 0.5), 1 / (0.5625 + 0.5)
    dw, du = -2 * 0.25 * w * w, 2 * 0.75 * u * u
    wanted = 10 * (du * w - dw * u) / (w + u) ** 2
    assert gradient.item() == pytest.approx(wanted)
    assert not any(buffer.requires_grad for buffer in held.buffers())


def test_entries_descend_along_the_gradient_of_what_was_read() -> None:
    held = dictionary(actions=2, capacity=6, width=3, neighbours=4, delta=0.5, entry_lr=0.01)
    generator = torch.Generator().manual_seed(1)
    held.write(
        torch.randn(9, 3, generator=generator),
        torch.tensor([0, 1] * 4 + [1]),
        torch.randn(9, generator=generator),
    )
    key, action = torch.randn(5, 3, generator=generator), torch.tensor([0, 1, 1, 0, 1])
    wanted = torch.randn(5, generator=generator)
    found = held.find(key)
    # The same by autograd, over copies of the entries, where all rows read all that is there.
    keys, values = held.keys.clone().requires_grad_(), held.values.clone().requires_grad_()
    total, errors = torch.zeros(()), []
    for row in range(5):
        slots = [n for n in found[action[row], row].tolist() if held.squares[action[row], n] < 1e9]
        apart = (key[row] - keys[action[row], slots]).square().sum(-1)
        weight = 1 / (apart + 0.5)
        read_there = (weight * values[action[row], slots]).sum() / weight.sum()
        errors.append(read_there.item() - wanted[row].item())
        total = total + 0.5 * (read_there - wanted[row]) ** 2
    key_gradient, value_gradient = torch.autograd.grad(total, [keys, values])
    held.descend(key, action, found[action, torch.arange(5)], torch.tensor(errors))
    torch.testing.assert_close(held.values, values.detach() - 0.01 * value_gradient)
    torch.testing.assert_close(held.keys, keys.detach() - 0.01 * key_gradient)
    filled = held.squares.isfinite()
    assert filled.sum(-1).tolist() == [4, 5]  # what was empty still is
    torch.testing.assert_close(held.squares[filled], held.keys.square().sum(-1)[filled])


def test_no_entry_is_thrown_past_what_was_looked_up() -> None:
    held = dictionary(delta=1e-6, entry_lr=1.0)
    write(held, [0.0, 1.0], [0.0, 100.0])
    slot = held.find(column(0.01))[:, 0]
    held.descend(column(0.01), torch.tensor([0]), slot, torch.tensor([-50.0]))
    assert all(-0.5 <= entry <= 1.5 for entry in held.keys[0, :2, 0].tolist())


class Plain:
    """The same, a row at a time, as the words say it."""

    def __init__(self, like: NeuralDictionary) -> None:
        self.like = like
        self.entries: list[list[list[Any]]] = [[] for _ in like.keys]  # key, value, last use
        self.clock = 0

    def read(self, key: Any, action: int) -> float:
        near = sorted(self.entries[action], key=lambda e: float(((e[0] - key) ** 2).sum()))
        near = near[: self.like.neighbours]
        weights = [1 / (float(((e[0] - key) ** 2).sum()) + self.like.delta) for e in near]
        return sum(w * e[1] for w, e in zip(weights, near)) / sum(weights) if near else 0.0

    def touch(self, keys: Any) -> None:
        self.clock += 1
        for entries in self.entries:
            for key in keys:
                near = sorted(entries, key=lambda e: float(((e[0] - key) ** 2).sum()))
                for entry in near[: self.like.neighbours]:
                    entry[2] = self.clock

    def write(self, keys: Any, actions: Any, values: Any) -> None:
        self.clock += 1
        added: list[list[list[Any]]] = [[] for _ in self.entries]
        for key, action, value in zip(keys, actions, values):
            everything = self.entries[action] + added[action]
            apart = [float(np.sqrt(((e[0] - key) ** 2).sum())) for e in everything]
            if apart and min(apart) <= self.like.tolerance:
                entry = everything[int(np.argmin(apart))]
                entry[1] += self.like.alpha * (value - entry[1])
                entry[2] = self.clock
            else:
                added[action].append([key, value, self.clock])
        for entries, new in zip(self.entries, added):
            surplus = len(entries) + len(new) - self.like.keys.shape[1]
            if surplus > 0:  # entries are in the order of their slots
                oldest = sorted(range(len(entries)), key=lambda i: (entries[i][2], i))[:surplus]
                free = sorted(oldest, key=lambda i: (entries[i][2], i))
                room = len(new) - surplus
                for i, entry in zip(free, new[room:]):
                    entries[i] = entry
                new[:] = new[:room]
            entries.extend(new)


@given(
    seed=st.integers(0, 10**6),
    tolerance=st.sampled_from([0.0, 0.05, 0.3]),
    alpha=st.sampled_from([0.1, 1.0]),
    rows=st.integers(1, 12),
)
def test_agrees_with_a_plain_loop(seed: int, tolerance: float, alpha: float, rows: int) -> None:
    rng = np.random.default_rng(seed)
    held = NeuralDictionary(3, 16, 2, neighbours=4, delta=0.01, alpha=alpha, tolerance=tolerance)
    plain = Plain(held)
    pool = rng.uniform(-1, 1, (20, 2))
    for _ in range(12):
        # Some come again exactly, some close by.
        keys = pool[rng.integers(0, 20, rows)] + rng.choice([0, 0, 0.02], (rows, 1)) * rng.random((rows, 2))  # fmt: skip
        keys = keys.astype(np.float32)
        actions, values = rng.integers(0, 3, rows), rng.normal(size=rows)
        asked = rng.uniform(-1, 1, (2, 2)).astype(np.float32)
        held.touch(held.find(torch.from_numpy(asked)))
        plain.touch(asked)
        held.write(torch.from_numpy(keys), torch.from_numpy(actions), torch.from_numpy(values).float())  # fmt: skip
        plain.write(keys, actions, values)
        assert held.count.tolist() == [len(entries) for entries in plain.entries]
        asked = rng.uniform(-1, 1, (5, 2)).astype(np.float32)
        key = torch.from_numpy(asked)
        found, any_found = held.read(key, held.find(key))
        wanted = [[plain.read(k, action) for k in asked] for action in range(3)]
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3, atol=1e-4)
        assert any_found.tolist() == [[bool(entries)] * 5 for entries in plain.entries]


def filled(rows: int = 40) -> NeuralDictionary:
    held = NeuralDictionary(2, 30, 5, neighbours=6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        action = torch.randint(0, 2, (rows,), generator=generator)
        held.write(torch.randn(rows, 5, generator=generator), action, torch.randn(rows))
        held.touch(held.find(torch.randn(3, 5, generator=generator)))
    return held


def test_a_restored_dictionary_goes_on_bit_for_bit() -> None:
    first, second = filled(), NeuralDictionary(2, 30, 5, neighbours=6)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    key, action = torch.randn(25, 5), torch.randint(0, 2, (25,))
    for held in (first, second):
        held.touch(held.find(key))
        held.write(key, action, key.sum(-1))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert torch.equal(first.read(key, first.find(key))[0], second.read(key, second.find(key))[0])


def test_searching_in_pieces_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held, key = filled(), torch.randn(13, 5)
    whole = held.find(key)
    monkeypatch.setattr(dnd_q, "_AT_ONCE", 4 * held.squares.numel())
    assert torch.equal(held.find(key).sort(-1).values, whole.sort(-1).values)


def test_a_slot_takes_what_is_said() -> None:
    held = NeuralDictionary(3, 100, 32)
    taken = sum(buffer.nbytes for name, buffer in held.named_buffers() if name != "clock")
    assert taken == 3 * 100 * (4 * 32 + 16)


def head(**settings: Any) -> DNDQ:
    torch.manual_seed(0)
    settings = {"capacity": 50, "neighbours": 5, **settings}
    built = build_part("head", {"type": "dnd_q", **settings}, "head", features=6, spec=SPEC)
    return built.value  # type: ignore[no-any-return]


def test_an_action_without_keys_is_worth_what_the_linear_layer_says() -> None:
    part, features = head(), torch.randn(4, 6)
    assert part(features).mean.tolist() == [[0.0, 0.0]] * 4
    torch.nn.init.constant_(part.unseen.bias, 3.0)
    part.dictionary.write(part.key(features[:1]), torch.tensor([1]), torch.tensor([5.0]))
    assert part(features).mean.tolist() == [[3.0, 5.0]] * 4


def test_keys_are_made_by_a_layer_or_are_the_features() -> None:
    features = torch.randn(4, 6)
    assert torch.equal(head(key_size=None)(features).key, features)
    assert head(key_size=None).dictionary.keys.shape == (2, 50, 6)
    wide = head(key_size=9)(features).key
    assert wide.shape == (4, 9)
    # The layer begins orthogonal: distances are those of the features.
    torch.testing.assert_close(torch.cdist(wide, wide), torch.cdist(features, features))


def test_the_loss_pulls_at_the_key() -> None:
    part, features = head(), torch.randn(4, 6)
    part.dictionary.write(part.key(torch.randn(20, 6)), torch.arange(20) % 2, torch.randn(20))
    output = part(features)
    nothing = torch.zeros(4)
    loss, surprise = output.td_loss(nothing.long(), nothing + 1, nothing, output, output.best())
    error = output.mean[:, 0] - 1
    torch.testing.assert_close(surprise, error.detach().abs())
    torch.testing.assert_close(loss, torch.nn.functional.huber_loss(error, nothing, reduction="none"))  # fmt: skip
    gradients = torch.autograd.grad(loss.sum(), list(part.parameters()))
    found = {name: bool(g.any()) for (name, _), g in zip(part.named_parameters(), gradients)}
    assert found == {"key.weight": True, "key.bias": True, "unseen.weight": False, "unseen.bias": False}  # fmt: skip


def test_actions_can_be_ruled_out() -> None:
    part = head()
    part.dictionary.write(part.key(torch.randn(4, 6)), torch.arange(4) % 2, torch.arange(4.0))
    output = part(torch.randn(2, 6)).masked(torch.tensor([[True, False], [True, True]]))
    assert output.mean[0, 1] == -math.inf
    assert output.best()[0] == 0
    assert output.key.shape == (2, 32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"neighbours": 60}, ["head.neighbours", "60 neighbours", "50 keys"]),
        ({"delta": 0.0}, ["head.delta"]),
        ({"alpha": 0.0}, ["head.alpha"]),
        ({"tolerance": -1.0}, ["head.tolerance"]),
        ({"key_size": 0}, ["head.key_size"]),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        head(**settings)
    for word in words:
        assert word in str(raised.value)
