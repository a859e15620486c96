"""Single steps that wait before they are written, and how little anybody notices."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from coach.core.batch import Batch, leaves, map_tree
from coach.memories.replay import Replay
from coach.memories.samplers.prioritized import Prioritized
from coach.memories.staging import Staging
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import SPECS, World

SPEC = SPECS["vector"]


def memory(envs: int, capacity: int = 24, **options: Any) -> Replay:
    return Replay(SPEC, envs, capacity=capacity, batch_size=8, warmup=0, **options)


def into(buffer: Batch, fragment: Batch) -> Batch:
    """The same fragment in the tensors of a source that uses them again and again."""
    for item in fields(Batch):
        mine, theirs = getattr(buffer, item.name), getattr(fragment, item.name)
        if item.name in ("obs", "action", "reward", "discount", "next_obs", "boundary"):
            map_tree(torch.Tensor.copy_, mine, theirs)
    buffer.continues = fragment.continues
    return buffer


def state(held: Replay) -> dict[str, Any]:
    found = {**held.state_dict(), **held.rows([])[0]}
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else value
        for name, value in found.items()
    }


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 2),
    st.lists(
        # Which of two buffers, or a longer fragment, or a look at the memory; whether it goes on.
        st.tuples(st.sampled_from(["one", "one", "one", "other", "long", "draw"]), st.booleans()),
        max_size=60,
    ),
    st.integers(0, 1_000),
)
def test_what_is_held_and_drawn_is_the_same(
    envs: int, events: list[tuple[str, bool]], seed: int
) -> None:
    world = World(SPEC, envs, seed)
    buffers = {name: world.fragment(1).clone() for name in ("one", "other")}
    options: dict[str, Any] = {"updates_per_step": 0.3, "seed": seed}
    reused, fresh = (memory(envs, sampler=Prioritized(), **options) for _ in range(2))
    for kind, cut in events:
        if kind == "draw":
            for mine, theirs in zip(reused.batches(lambda b: b), fresh.batches(lambda b: b)):
                assert torch.equal(mine.reward, theirs.reward)
                assert torch.equal(mine.next_obs, theirs.next_obs)
                for held in (reused, fresh):
                    held.feedback(mine, mine.reward.abs())
            continue
        fragment = world.fragment(3 if kind == "long" else 1)
        fragment.continues = not cut or kind == "one"
        fresh.write(fragment)
        reused.write(fragment if kind == "long" else into(buffers[kind], fragment))
        assert reused.env_steps == fresh.env_steps
    assert reused.monitor() == fresh.monitor()
    assert state(reused) == state(fresh)


def test_steps_wait_until_somebody_looks() -> None:
    held, world = memory(2), World(SPEC, 2, 0)
    buffer = world.fragment(1).clone()
    for _ in range(5):
        held.write(into(buffer, world.fragment(1)))
    assert held._stripes.written.tolist() == [1, 1]  # the first shows that the tensors come again
    assert held.env_steps == 10
    assert held.stripes.written.tolist() == [5, 5]


def test_no_more_wait_than_there_is_room_for() -> None:
    held, world = memory(1, capacity=10), World(SPEC, 1, 0)
    buffer = world.fragment(1).clone()
    for _ in range(100):
        held.write(into(buffer, world.fragment(1)))
    assert held._stripes.written.tolist() == [91]
    assert held.stripes.written.tolist() == [100]


@pytest.mark.parametrize("name", ["dict", "stack"])
def test_what_does_not_suit_is_written_at_once(name: str) -> None:
    spec = SPECS[name]
    staging = Staging(most_steps=100, step_bytes=2**17 if name == "stack" else 8)
    fragment = World(spec, 1, 0).fragment(1)
    taken = [staging.add(fragment) for _ in range(3)]
    assert taken == ([0, 1, 1] if name == "stack" else [0, 0, 0])
    assert staging.full == (name == "stack")
    noted = World(SPEC, 1, 0).fragment(1)
    noted.extras = {"value": torch.zeros(1, 1)}  # from which first priorities are found
    assert [Staging(100, 8).add(noted) for _ in range(2)] == [0, 0]


def test_a_tensor_that_was_exchanged_is_noticed() -> None:
    staging, world = Staging(100, 8), World(SPEC, 1, 0)
    fragment = world.fragment(1)
    assert [staging.add(fragment) for _ in range(3)] == [0, 1, 1]
    fragment.reward = torch.full((1, 1), 7.0)
    assert staging.add(fragment) == 0
    waiting = staging.take()
    assert len(waiting) == 2
    assert [leaf.shape[0] for _, leaf in leaves(waiting.obs)] == [2]
    assert [staging.add(fragment) for _ in range(2)] == [0, 1]
    assert staging.take().reward.tolist() == [[7.0]]
