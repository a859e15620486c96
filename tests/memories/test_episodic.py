"""Drawing from finished episodes only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from coach.core.batch import Batch
from coach.core.spec import Spec
from coach.memories.replay import Replay
from coach.memories.samplers.episodic import Episodic
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

SPEC = Spec(spaces.Box(-np.inf, np.inf, (1,)), spaces.Discrete(2))


def memory(capacity: int = 40, envs: int = 2, warmup: int = 0) -> Replay:
    return Replay(
        SPEC,
        envs,
        capacity=capacity,
        batch_size=4,
        warmup=warmup,
        updates_per_step=1,
        sampler=Episodic(),
    )


def fragment(first: int, ends: list[list[bool]], continues: bool = True) -> Batch:
    """Steps ``[T][N]``; each row's observation tells when and where it was: ``100 t + env``."""
    over = torch.tensor(ends)
    steps, envs = over.shape
    told = 100.0 * (first + torch.arange(steps))[:, None] + torch.arange(envs)
    return Batch(
        told[..., None], torch.zeros(steps, envs, dtype=torch.int64), told, 1 - over.float(),
        told[..., None] + 100, over, env_ids=torch.arange(envs), continues=continues,
    )  # fmt: skip


def drawn(replay: Replay, count: int = 400) -> set[int]:
    """Steps times 100, plus the environment, of what is drawn."""
    index, weight = replay.sampler.draw(replay.stripes, count, 0, replay.rng)
    assert weight is None
    return set(replay.stripes.gather(index, 1.0, 1).reward.int().tolist())


def test_an_episode_is_drawn_once_it_has_ended() -> None:
    replay = memory()
    replay.write(fragment(0, [[False, False]] * 3))
    assert not list(replay.batches(lambda batch: batch))  # nothing has ended yet
    replay.write(fragment(3, [[True, False], [False, False]]))
    assert drawn(replay) == {0, 100, 200, 300}
    assert replay.sampler.monitor(0) == {"waiting": 6.0}
    assert len(list(replay.batches(lambda batch: batch))) == 10  # all that was owed
    replay.write(fragment(5, [[False, True]]))
    assert drawn(replay) == {0, 100, 200, 300, *(100 * step + 1 for step in range(6))}


def test_what_was_given_up_has_ended() -> None:
    replay = memory()
    replay.write(fragment(0, [[False, False]] * 2))
    replay.write(fragment(2, [[False, False]], continues=False))
    assert drawn(replay) == {0, 100, 1, 101}


def test_all_rows_are_equally_likely() -> None:
    replay = memory()
    replay.write(fragment(0, [[False, True], [False, False], [True, False]]))  # 3 and 1 of them
    index, _ = replay.sampler.draw(replay.stripes, 8_000, 0, replay.rng)
    assert len(counts := Counter(index.tolist())) == 4
    assert min(counts.values()) > 1_850


def test_nothing_is_left_to_draw_when_an_endless_episode_has_overwritten_the_others() -> None:
    replay = memory(capacity=6, envs=1)
    replay.write(fragment(0, [[True], [False]]))
    assert replay.sampler.ready(replay.stripes)
    for step in range(2, 12, 2):
        replay.write(fragment(step, [[False], [False]]))
    assert not replay.sampler.ready(replay.stripes)
    assert not list(replay.batches(lambda batch: batch))


def test_it_is_restored() -> None:
    replay, other = memory(), memory()
    replay.write(fragment(0, [[False, True], [True, False], [False, False]]))
    rows, _ = replay.rows([0, 0])
    other.load_rows(rows)
    other.load_state_dict(replay.state_dict())
    assert drawn(other) == drawn(replay) == {0, 100, 1}


def pieces() -> st.SearchStrategy[list[list[list[bool]]]]:
    step = st.lists(st.booleans(), min_size=2, max_size=2)
    return st.lists(st.lists(step, min_size=1, max_size=5), min_size=1, max_size=8)


def finished(history: list[list[bool]], held: int) -> Iterator[int]:
    """What may be drawn, by looking at the whole past."""
    for env in range(2):
        last = max((t for t, over in enumerate(history) if over[env]), default=-1)
        yield from (100 * t + env for t in range(max(0, len(history) - held), last + 1))


@settings(max_examples=60, deadline=None)
@given(pieces())
def test_as_found_by_looking_at_the_whole_past(written: list[list[list[bool]]]) -> None:
    replay = memory(capacity=12)
    history: list[list[bool]] = []
    for piece in written:
        replay.write(fragment(len(history), piece))
        history += piece
        expected = set(finished(history, 6))
        assert replay.sampler.ready(replay.stripes) == bool(expected)
        if expected:
            assert drawn(replay) == expected
