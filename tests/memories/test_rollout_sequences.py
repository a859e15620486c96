"""Rollouts put together from the fragments of several actors, and handed out in columns."""

from __future__ import annotations

from dataclasses import replace

import torch
from coach.core.batch import Batch
from coach.core.spec import Spec
from coach.memories.rollout import Rollout
from gymnasium import spaces

SPEC = Spec(spaces.Box(-9, 9, (1,)), spaces.Discrete(2))


def fragment(ids: list[int], start: int, steps: int, version: int = 0) -> Batch:
    """Rows tell their environment and step: ``100 * env + step``."""
    env, step = torch.tensor(ids), torch.arange(start, start + steps)
    reward = (100 * env + step[:, None]).float()  # [T, N]
    return Batch(
        obs=reward[..., None].clone(),
        action=torch.zeros(reward.shape, dtype=torch.int64),
        reward=reward,
        discount=torch.ones_like(reward),
        next_obs=reward[..., None] + 1,
        boundary=torch.zeros(reward.shape, dtype=torch.bool),
        env_ids=env,
        state={"hidden": (100 * env + start).float()[:, None]},
        version=version,
    )


def memory(envs: int = 4, horizon: int = 4, **settings: object) -> Rollout:
    return Rollout(SPEC, envs, sequences=True, horizon=horizon, **{"epochs": 1, **settings})  # type: ignore[arg-type]


def drawn(rollout: Rollout) -> list[Batch]:
    return list(rollout.batches(lambda batch: batch))


def test_columns_keep_their_order_and_their_first_state() -> None:
    kept = memory(batch_size=8)
    kept.write(fragment([0, 1, 2, 3], 0, 4))
    found = drawn(kept)
    assert [len(batch) for batch in found] == [8, 8]
    seen = set()
    for batch in found:
        assert batch.length == 4
        whole = batch.unflatten()
        for column in range(2):
            first = float(whole.reward[0, column])
            assert whole.reward[:, column].tolist() == [first + t for t in range(4)]
            assert float(batch.state["hidden"][column]) == first
            seen.add(first)
    assert seen == {0, 100, 200, 300}


def test_fragments_of_two_actors_stand_beside_each_other() -> None:
    kept = memory()
    kept.write(fragment([0, 1], 0, 2, version=5))
    kept.write(fragment([2, 3], 0, 2, version=7))
    assert not drawn(kept)
    kept.write(fragment([2, 3], 2, 2, version=8))
    assert not drawn(kept)
    kept.write(fragment([0, 1], 2, 2, version=9))
    (batch,) = drawn(kept)
    assert sorted(batch.unflatten().reward[0].tolist()) == [0, 100, 200, 300]
    assert batch.version == 5
    assert not drawn(kept)


def test_a_fast_actor_fills_the_rollout_alone() -> None:
    """Nobody waits for a particular actor: what matters is how many columns there are."""
    kept = memory()
    kept.write(fragment([2, 3], 0, 2))  # the slow one
    for start in (0, 2, 4, 6):
        kept.write(fragment([0, 1], start, 2))
    (batch,) = drawn(kept)
    assert sorted(batch.unflatten().reward[0].tolist()) == [0, 4, 100, 104]
    state = kept.state_dict()
    again = memory()
    again.load_state_dict(state)
    again.write(fragment([2, 3], 2, 2))
    again.write(fragment([0, 1], 8, 4))
    (batch,) = drawn(again)  # the slow one's first steps were not lost
    assert sorted(batch.unflatten().reward[0].tolist()) == [8, 108, 200, 300]


def test_single_rows_have_no_state() -> None:
    kept = Rollout(SPEC, 2, horizon=2, epochs=1)
    kept.write(replace(fragment([0, 1], 0, 2)))
    (batch,) = drawn(kept)
    assert batch.state is None
    assert batch.length == 1
