"""What is kept of unfinished episodes: all of it up to a bound, and nothing that grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coach.environments import history as module
from coach.environments.history import History, can_repeat, share
from hypothesis import given
from hypothesis import strategies as st


def naive(steps: int, ends: list[set[int]], envs: int) -> list[list[int]]:
    """The actions of unfinished episodes; step ``t`` takes action ``10 t + i`` in environment i."""
    kept: list[list[int]] = [[] for _ in range(envs)]
    for t in range(steps):
        for i in range(envs):
            kept[i] = [] if i in ends[t] else [*kept[i], 10 * t + i]
    return kept


@given(
    ends=st.lists(st.sets(st.integers(0, 2)), min_size=1, max_size=400),
    most=st.integers(1, 90),
)
def test_it_keeps_the_actions_of_unfinished_episodes_up_to_a_bound(
    ends: list[set[int]], most: int
) -> None:
    history = History(3, seed=4, most_steps=most)
    for i in range(3):
        history.begin(i)
    for t, ended in enumerate(ends):
        history.record(np.array([10 * t, 10 * t + 1, 10 * t + 2]))
        for i in ended:
            history.begin(i)
    state, expected = history.state_dict(), naive(len(ends), ends, 3)
    assert [history.length(i) for i in range(3)] == [len(actions) for actions in expected]
    lost = [i for i, actions in enumerate(expected) if len(actions) > most]
    assert state.get("lost", []) == lost
    assert can_repeat(state) == (not lost)
    for i, actions in enumerate(expected):
        if i not in lost:
            assert state.get(f"actions.{i}", np.empty(0)).tolist() == actions


@pytest.mark.parametrize("steps", [5, 200])
def test_a_restored_history_goes_on_as_the_first(steps: int) -> None:
    first, second = History(2, seed=1), History(2, seed=1)
    rng = np.random.default_rng(0)

    def go_on(*histories: History) -> None:
        for _ in range(steps):
            action = rng.normal(size=(2, 3)).astype(np.float32)
            for history in histories:
                history.record(action)
            if rng.random() < 0.02:
                assert len({history.begin(1) for history in histories}) == 1

    for i in range(2):
        first.begin(i)
    go_on(first)
    second.load_state_dict(first.state_dict())
    go_on(first, second)
    one, two = first.state_dict(), second.state_dict()
    assert one.keys() == two.keys()
    assert one["episode"] == two["episode"]
    for key in one.keys() - {"episode"}:
        assert one[key].dtype == two[key].dtype
        assert one[key].equal(two[key])


def test_memory_and_checkpoint_stop_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2**16)
    history, action = History(2, seed=1), np.zeros((2, 4), np.float32)
    for i in range(2):
        history.begin(i)
    largest = 0
    for step in range(10_000):
        history.record(action)
        if step % 100 == 99:
            history.begin(1)
        largest = max(largest, sum(rows.nbytes for rows in arrays_in(history)))
    assert largest <= 2**16
    state = history.state_dict()
    assert state["lost"] == [0]
    assert "actions.0" not in state
    assert history.length(0) == 10_000


def arrays_in(thing: Any) -> list[np.ndarray[Any, Any]]:
    return [value for value in vars(thing).values() if isinstance(value, np.ndarray)]


def test_a_share_knows_which_of_its_own_are_lost() -> None:
    state = {"episode": [3, 4, 5, 6], "lost": [0, 3]}
    assert share(state, 0, 2)["lost"] == [0]
    assert share(state, 2, 4)["lost"] == [1]
    assert "lost" not in share(state, 1, 3)
