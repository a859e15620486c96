"""A memory goes on with the newest of its rows where a disk has lost older ones."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coach.core.batch import Batch
from coach.core.memory import Memory
from coach.core.registry import find
from coach.core.schema import Part
from coach.core.spec import Spec
from coach.memories.replay import Replay
from coach.memories.sequence_replay import SequenceReplay
from coach.runners.journal import Journal
from gymnasium import spaces

SPEC = Spec(spaces.Box(-9e3, 9e3, (2,), np.float32), spaces.Discrete(3))
SAMPLERS = ("uniform", "prioritized", "rank", "balanced", "episodic")
ENVS, CAPACITY = 2, 60


def fragment(begin: int, steps: int) -> Batch:
    """Steps whose observations tell the position and the environment."""
    at = torch.arange(begin, begin + steps).float()
    obs = torch.stack([at[:, None].expand(-1, ENVS), torch.arange(2.0).expand(steps, ENVS)], -1)
    boundary = ((at + 1) % 7 == 0)[:, None].expand(-1, ENVS)
    return Batch(
        obs=obs,
        action=(at.long() % 3)[:, None].expand(-1, ENVS).contiguous(),
        reward=at[:, None].expand(-1, ENVS).contiguous(),
        discount=torch.ones(steps, ENVS),
        next_obs=obs + torch.tensor([1.0, 0.0]),
        boundary=boundary.contiguous(),
        env_ids=torch.arange(ENVS),
    )


def replay(sampler: str) -> Replay:
    part = Part("sampler", find("sampler", sampler), {}, {})
    return Replay(SPEC, ENVS, capacity=CAPACITY, batch_size=8, warmup=0, sampler=part())


def sequences(sampler: str) -> SequenceReplay:
    part = Part("sampler", find("sampler", sampler), {}, {})
    return SequenceReplay(
        SPEC, ENVS, capacity=CAPACITY, batch_size=4, length=5, overlap=2, burn_in=0, warmup=0,
        sampler=part(),
    )  # fmt: skip


def written(memory: Memory, folder: Path) -> Journal:
    """Fill the memory and its journal in chunks of 9 steps of each environment."""
    journal = Journal(folder)
    for begin in range(0, 45, 3):
        memory.write(fragment(begin, 3))
        if begin % 9 == 6:
            list(memory.batches(lambda batch: batch))
            journal.append(memory)
            journal.drop_old(memory)
    return journal


def restored(memory: Memory, journal: Journal, state: dict[str, Any]) -> tuple[Journal, list[str]]:
    said: list[str] = []
    taken = Journal(journal.folder)
    taken.take_over(journal.chunks, journal.saved)
    taken.restore(memory, state, said.append)
    return taken, said


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_replay_draws_from_what_is_left(sampler: str, tmp_path: Path) -> None:
    whole = replay(sampler)
    journal = written(whole, tmp_path)
    # Rows 15 to 45 are held; the chunks reach to 18, 27, 36 and 45.
    assert [chunk["reached"] for chunk in journal.chunks] == [[n, n] for n in (18, 27, 36, 45)]
    state = whole.state_dict()
    (tmp_path / journal.chunks[1]["file"]).write_bytes(b"gone")
    rest = replay(sampler)
    taken, said = restored(rest, journal, state)
    assert "24 stored steps of the replay are lost, the 36 newest are restored" in said[-1]
    assert len(taken.chunks) == 2
    assert rest.oldest() == [27, 27]
    assert len(rest.stripes) == 36
    seen: set[int] = set()
    for _ in range(20):
        index, _ = rest.sampler.draw(rest.stripes, 16, 50, rest.rng)
        batch = rest.stripes.gather(index, 0.9, 2)
        seen |= set(batch.obs[:, 0].long().tolist())
        assert torch.equal(batch.obs[:, 0] % 3, batch.action.float())
    assert seen <= set(range(27, 45))
    assert len(seen) > 8
    later = rest.state_dict()
    again = replay(sampler)
    _, said = restored(again, taken, later)
    assert said == []
    assert again.oldest() == [27, 27]
    for begin in range(45, 63, 3):  # the ring fills up once more
        again.write(fragment(begin, 3))
        list(again.batches(lambda batch: batch))
    assert len(again.stripes) == CAPACITY
    assert again.oldest() == [33, 33]


@pytest.mark.parametrize("sampler", ["uniform", "prioritized", "rank"])
def test_sequences_begin_after_what_was_lost(sampler: str, tmp_path: Path) -> None:
    whole = sequences(sampler)
    journal = written(whole, tmp_path)
    state = whole.state_dict()
    (tmp_path / journal.chunks[0]["file"]).unlink()
    rest = sequences(sampler)
    _, said = restored(rest, journal, state)
    assert "are lost" in said[-1]
    assert rest.oldest() == [18, 18]
    for batch in islice(rest.batches(lambda batch: batch, lambda: True), 10):
        assert batch.obs[:, 0].min() >= 18
        steps = batch.obs[:, 0].view(5, -1)
        assert (steps.diff(dim=0) == 1).all()


def test_a_memory_that_has_lost_all_begins_empty(tmp_path: Path) -> None:
    whole = replay("prioritized")
    journal = written(whole, tmp_path)
    (tmp_path / journal.chunks[-1]["file"]).write_bytes(b"")
    rest = replay("prioritized")
    taken, said = restored(rest, journal, whole.state_dict())
    assert "Nothing of the replay could be restored" in said[-1]
    assert (taken.chunks, taken.saved, len(rest.stripes)) == ([], [], 0)
    rest.write(fragment(0, 12))
    assert len(list(rest.batches(lambda batch: batch))) == 6  # 24 steps, one update for four
