"""Terminated is not truncated, for every registered agent and memory (invariant I5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from coach.core.batch import Batch
from coach.core.registry import find
from small_loop import Ladder, Loop, agents, memories_of, served, small_loop, small_memory
from worlds import ACTIONS

PAIRS = [(name, memory) for name in agents() for memory in memories_of(find("agent", name))]  # type: ignore[arg-type]
LENGTH = 3


def loop_of(agent: str, memory: str) -> Loop:
    return small_loop(
        agent, lambda: Ladder(ACTIONS[served(agent)[0]], LENGTH), memory, batch_size=64
    )


def truncated(batch: Batch) -> torch.Tensor:
    return batch.boundary & (batch.discount > 0)


def terminated(batch: Batch) -> torch.Tensor:
    return batch.boundary & (batch.discount == 0)


@pytest.mark.parametrize(("agent", "memory"), PAIRS)
def test_memory_hands_out_true_final_observations_and_discounts(agent: str, memory: str) -> None:
    seen: list[Batch] = []

    def prepare(batch: Batch) -> Batch:
        seen.append(batch.clone())  # its tensors may be those of the fragment
        return loop.learner.prepare(batch)

    loop = loop_of(agent, memory)
    while len(seen) < 2:
        loop.memory.write(loop.actor.collect())
        list(loop.memory.batches(prepare))
    for batch in seen:
        steps, ends = batch.obs.unbind(-1)
        last = steps == LENGTH - 1
        assert torch.equal(batch.boundary, last)
        gamma = torch.tensor(0.9)
        assert torch.equal(batch.discount, torch.where(last & (ends > 0), 0 * gamma, gamma))
        assert torch.equal(batch.next_obs, torch.stack([steps + 1, ends], -1))
        assert truncated(batch).any()
        assert terminated(batch).any()


@pytest.mark.parametrize(("agent", "memory"), PAIRS)
def test_what_lies_behind_a_time_limit_counts_and_behind_a_terminal_state_does_not(
    agent: str, memory: str
) -> None:
    loop = loop_of(agent, memory)
    with torch.no_grad():  # a fresh network may value everything alike
        for parameter in loop.agent.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    fragments = [loop.actor.collect().map(torch.clone) for _ in range(8)]

    def losses(rows: Callable[[Batch], torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Losses of the same minibatch, with other final observations in some rows."""

        touched: list[bool] = []

        def prepare(batch: Batch) -> Batch:
            if rows is not None:
                moved = batch.next_obs.clone()
                touched.append(bool(rows(batch).any()))
                moved[rows(batch)] += 10
                batch = replace(batch, next_obs=moved)
            return loop.learner.prepare(batch)

        kept = small_memory(memory, loop.actor.envs, batch_size=64)  # type: ignore[arg-type]
        for fragment in fragments:
            kept.write(fragment)
            owed = list(kept.batches(prepare))
        batch = owed[-1]
        assert rows is None or touched[-1]
        loop.agent.rng.manual_seed(0)
        return [
            getattr(loop.agent, goal.name)(batch).value.detach() for goal in loop.agent.objectives()
        ]

    before = losses()
    assert all(torch.equal(a, b) for a, b in zip(before, losses())), "not a pure function"
    assert not all(torch.equal(a, b) for a, b in zip(before, losses(truncated)))
    assert all(torch.equal(a, b) for a, b in zip(before, losses(terminated)))
