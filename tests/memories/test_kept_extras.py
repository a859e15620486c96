"""Numbers that agents note of a fragment: kept with their steps, round the ring and on a disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from coach.core.batch import Batch
from coach.core.spec import Spec
from coach.memories import journal
from coach.memories.replay import Replay
from coach.memories.stripes import Stripes
from gymnasium import spaces

SPEC = Spec(spaces.Box(0, 1e6, (1,), np.float32), spaces.Discrete(2))


def fragments(lengths: list[int], envs: int, first: int = 0) -> Iterator[Batch]:
    """Steps with a number of their own as reward, of which 10 and -3 times as much is noted."""
    start = 1
    for length in lengths:
        number = start + torch.arange(length * envs).view(length, envs).float()
        start += length * envs
        boundary = number % 4 == 0
        yield Batch(
            obs=number.unsqueeze(-1),
            action=(number % 2).long(),
            reward=number,
            discount=(~boundary).float(),
            next_obs=number.unsqueeze(-1) + envs,
            boundary=boundary,
            extras={"a": 10 * number, "b": -3 * number, "unwanted": number},
            env_ids=first + torch.arange(envs),
        )


@pytest.mark.parametrize("lengths", [[3, 3, 3, 3, 3], [1, 7, 2, 7, 4], [2]])
def test_each_comes_back_with_its_step(lengths: list[int]) -> None:
    stripes = Stripes(SPEC, 2, 16, kept=("a", "b"))
    for fragment in fragments(lengths, 2):
        stripes.write(fragment)
    count = min(sum(lengths), 8)
    newest = (int(stripes.written[0]) - 1 - np.arange(count)) % stripes.rows
    index = torch.from_numpy(np.concatenate([newest, stripes.rows + newest]))
    for n_step in (1, 3):
        batch = stripes.gather(index, 0.9, n_step)
        assert set(batch.extras) == {"a", "b"}
        assert torch.equal(batch.extras["a"], 10 * batch.obs[:, 0])
        assert torch.equal(batch.extras["b"], -3 * batch.obs[:, 0])
    again = Stripes(SPEC, 2, 16, kept=("a", "b"))
    rows, _ = journal.rows_since(stripes, [])
    journal.load_rows(again, rows)
    for name in ("a", "b"):
        assert torch.equal(again.gather(index, 0.9, 1).extras[name], batch.extras[name])


def test_they_count_as_memory() -> None:
    bare, keeping = Stripes(SPEC, 2, 16), Stripes(SPEC, 2, 16, kept=("a", "b"))
    assert keeping.nbytes - bare.nbytes == 8 * keeping.size


def test_minibatches_bring_them_whole() -> None:
    memory = Replay(
        SPEC, 2, capacity=64, batch_size=4, warmup=0, updates_per_step=1, kept_extras=("b",)
    )
    for fragment in fragments([6, 6, 6], 2):
        memory.write(fragment)
        for batch in memory.batches(lambda batch: batch):
            assert torch.equal(batch.extras["b"], -3 * batch.obs[:, 0])
    assert memory.updates > 20
