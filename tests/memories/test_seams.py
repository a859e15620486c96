"""Nothing flows from an episode that was given up to the one that follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from coach.core.batch import Batch
from coach.core.spec import Spec
from coach.memories.replay import Replay
from coach.memories.rollout import Rollout
from gymnasium import spaces

SPEC = Spec(spaces.Box(-9, 9, (2,)), spaces.Discrete(2))


def steps(episode: int, begin: int, count: int, continues: bool = True, envs: int = 2) -> Batch:
    """Observations are ``[episode, step]``, so that every row tells what must be found in it."""
    step = torch.arange(begin, begin + count).float()[:, None].expand(count, envs)
    obs = torch.stack([torch.full_like(step, episode), step], -1)
    behind = obs + torch.tensor([0.0, 1.0])
    return Batch(
        obs=obs,
        action=torch.zeros(count, envs, dtype=torch.int64),
        reward=torch.ones(count, envs),
        discount=torch.ones(count, envs),
        next_obs=behind,
        boundary=torch.zeros(count, envs, dtype=torch.bool),
        env_ids=torch.arange(envs),
        continues=continues,
    )


def transitions(memory: Replay, n_step: int = 1) -> Batch:
    held = [
        env * memory.stripes.rows + row % memory.stripes.rows
        for env, (end, count) in enumerate(zip(memory.stripes.written, memory.stripes.counts))
        for row in range(end - count, end)
    ]
    return memory.stripes.gather(torch.tensor(held), 0.5, n_step)


def check(batch: Batch, n_step: int = 1) -> None:
    """Every transition stays within its episode; the last of the first one is cut off, not ended."""
    assert batch.obs[:, 0].equal(batch.next_obs[:, 0])
    apart = batch.next_obs[:, 1] - batch.obs[:, 1]
    assert (apart >= 1).all()
    assert (apart <= n_step).all()
    assert batch.discount.equal(0.5**apart)  # a time limit: what follows is still worth something


def given_up(memory: Replay) -> Replay:
    memory.write(steps(episode=1, begin=0, count=3))
    memory.write(steps(episode=1, begin=3, count=2))
    memory.write(steps(episode=2, begin=0, count=4, continues=False))
    return memory


@pytest.mark.parametrize("n_step", [1, 3])
def test_replayed_transitions_stay_within_their_episode(n_step: int) -> None:
    memory = given_up(Replay(SPEC, 2, capacity=40))
    check(transitions(memory, n_step), n_step)
    seams = transitions(memory).boundary.nonzero().flatten().tolist()
    assert seams == [4, 13]  # the fifth row of both stripes of nine


def test_seams_survive_a_checkpoint_that_knew_the_rows_before() -> None:
    memory = Replay(SPEC, 2, capacity=40)
    memory.write(steps(episode=1, begin=0, count=5))
    first, reached = memory.rows([])  # goes to disk before the episode is given up
    memory.write(steps(episode=2, begin=0, count=4, continues=False))
    second, _ = memory.rows(reached)
    again = Replay(SPEC, 2, capacity=40)
    again.load_rows(first)
    again.load_rows(second)
    again.load_state_dict(memory.state_dict())
    check(transitions(again, 3), 3)
    wanted, found = transitions(memory), transitions(again)
    assert wanted.boundary.equal(found.boundary)
    assert wanted.next_obs.equal(found.next_obs)
    again.write(steps(episode=2, begin=4, count=3))
    check(transitions(again))


def test_seams_go_with_their_rows() -> None:
    memory = given_up(Replay(SPEC, 2, capacity=16))
    for begin in range(4, 40, 4):
        memory.write(steps(episode=2, begin=begin, count=4))
        check(transitions(memory))
    assert not any(name.startswith("stripes.seams") for name in memory.state_dict())


def test_an_episode_that_had_ended_needs_no_seam() -> None:
    memory = Replay(SPEC, 2, capacity=40)
    over = steps(episode=1, begin=0, count=3)
    over.boundary[-1], over.discount[-1] = True, 0.0
    memory.write(over)
    memory.write(steps(episode=2, begin=0, count=2, continues=False))
    ended = transitions(memory)
    assert ended.discount[ended.boundary].tolist() == [0.0, 0.0]
    assert not any(name.startswith("stripes.seams") for name in memory.state_dict())


def test_the_first_fragment_has_nothing_to_give_up() -> None:
    memory = Replay(SPEC, 2, capacity=40)
    memory.write(steps(episode=1, begin=0, count=3, continues=False))
    check(transitions(memory))


def test_unfinished_rollouts_are_cut_too() -> None:
    memory = Rollout(SPEC, 2, horizon=6, epochs=1, sequences=True)
    memory.write(steps(episode=1, begin=0, count=2))
    memory.write(steps(episode=2, begin=0, count=4, continues=False))
    (batch,) = memory.batches(lambda batch: batch)
    whole = batch.unflatten()
    assert whole.boundary.any(1).tolist() == [False, True, False, False, False, False]
    assert whole.next_obs[1, 0].tolist() == [1.0, 2.0]
    assert (whole.discount > 0).all()


def test_others_are_left_alone() -> None:
    memory = Rollout(SPEC, 4, horizon=4, epochs=1, sequences=True)
    memory.write(steps(episode=1, begin=0, count=2))
    other = torch.tensor([2, 3])
    memory.write(replace(steps(episode=7, begin=0, count=2, continues=False), env_ids=other))
    memory.write(steps(episode=1, begin=2, count=2))
    memory.write(replace(steps(episode=7, begin=2, count=2), env_ids=other))
    (batch,) = memory.batches(lambda batch: batch)
    assert not batch.boundary.any()
