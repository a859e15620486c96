"""Whole episodes: waited for, handed out once each, cut where nothing else helps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.memories.episodes import Episodes
from naive import SPECS

SPEC = SPECS["vector"]


def fragment(begin: int, ends: list[list[bool]], terminated: bool = True) -> Batch:
    """Steps numbered by their reward, 100 more in the second environment."""
    boundary = torch.tensor(ends)  # [T, N]
    steps, envs = boundary.shape
    reward = (torch.arange(begin, begin + steps)[:, None] + 100.0 * torch.arange(envs)).float()
    obs = reward[..., None].expand(steps, envs, SPEC.observation.shape[0]).clone()  # type: ignore[index]
    discount = 1.0 - (boundary & terminated).float()
    action = torch.zeros(steps, envs, dtype=torch.int64)
    return Batch(obs, action, reward, discount, obs + 1, boundary, env_ids=torch.arange(envs))


def memory(**settings: Any) -> Episodes:
    return Episodes(SPEC, 2, **settings)


def rewards(held: Episodes) -> list[list[float]]:
    return [sorted(batch.reward.tolist()) for batch in held.batches(lambda batch: batch)]


def test_waits_until_an_episode_is_over() -> None:
    held = memory(discount=0.5)
    held.write(fragment(0, [[False, False], [False, False]]))
    assert rewards(held) == []
    assert held.monitor() == {"steps": 4.0}
    held.write(fragment(2, [[True, False], [False, True]]))
    assert rewards(held) == [[0, 1, 2], [100, 101, 102, 103]]
    held.write(fragment(4, [[True, True], [False, False]]))
    assert rewards(held) == [[3, 4], [104]]  # each step once


def test_prepares_columns_with_the_discount() -> None:
    held, seen = memory(discount=0.5), []

    def prepare(batch: Batch) -> Batch:
        seen.append((tuple(batch.reward.shape), batch.discount[:, 0].tolist()))
        return batch

    held.write(fragment(0, [[False, True], [True, False]]))
    held.write(fragment(2, [[False, True]], terminated=False))
    list(held.batches(prepare))
    assert seen == [((2, 1), [0.5, 0.0]), ((1, 1), [0.0]), ((2, 1), [0.5, 0.5])]


def test_several_episodes_epochs_and_minibatches() -> None:
    held = memory(episodes=2, epochs=3, batch_size=2)
    held.write(fragment(0, [[False, False], [True, False], [False, True]]))
    found = rewards(held)
    assert [len(rows) for rows in found] == [2, 2, 1] * 3
    for epoch in range(3):
        rows = [r for batch in found[3 * epoch : 3 * epoch + 3] for r in batch]
        assert sorted(rows) == [0, 1, 100, 101, 102]


def test_endless_episodes_are_cut() -> None:
    held = memory(longest=4)
    for number in range(5):
        held.write(fragment(2 * number, [[False, False]] * 2))
    assert rewards(held) == [[0, 1, 2, 3], [100, 101, 102, 103], [4, 5, 6, 7], [104, 105, 106, 107]]


def test_given_up_episodes_end_where_they_stood() -> None:
    held, seen = memory(), []
    held.write(fragment(0, [[False, False]] * 2))
    later = fragment(2, [[True, False]])
    later.continues = False
    held.write(later)
    list(held.batches(lambda batch: seen.append(batch) or batch))  # type: ignore[func-returns-value]
    assert [batch.reward[:, 0].tolist() for batch in seen] == [[0, 1], [2], [100, 101]]
    assert [bool(batch.boundary[-1]) for batch in seen] == [True] * 3
    assert [float(batch.discount[-1]) for batch in seen] == pytest.approx([0.99, 0.0, 0.99])


def test_sequences_are_whole_episodes_with_their_state() -> None:
    held = Episodes(SPEC, 2, sequences=True)
    first = fragment(0, [[False, False], [True, False], [False, True]])
    first.state = torch.tensor([[5.0], [6.0]])
    held.write(first)
    found = {batch.length: batch for batch in held.batches(lambda batch: batch)}
    assert found[2].reward.tolist() == [0, 1]
    assert found[2].state.tolist() == [[5.0]]
    assert found[3].state.tolist() == [[6.0]]
    second = fragment(3, [[True, True]])
    second.state = torch.tensor([[7.0], [8.0]])
    held.write(second)
    states = {tuple(b.reward.tolist()): b.state.tolist() for b in held.batches(lambda b: b)}
    assert states == {(2, 3): [[0.0]], (103,): [[8.0]]}  # begun within, and with, a fragment


def test_goes_on_where_it_was() -> None:
    one, two = (
        memory(episodes=3, epochs=2, batch_size=2),
        memory(episodes=3, epochs=2, batch_size=2),
    )
    one.write(fragment(0, [[False, False], [True, False], [False, True], [False, False]]))
    two.load_state_dict(one.state_dict())
    for held in (one, two):
        held.write(fragment(4, [[False, False], [True, True]]))
    assert rewards(one) == rewards(two)


def test_workers_cannot_average_over_episodes() -> None:
    with pytest.raises(SettingError, match=r"type.*wait for each other"):
        memory().divided({}, 2, together=True)
    assert memory().divided({"episodes": 3}, 2, together=False) == {"episodes": 3}
