"""Every environment has an epsilon of its own (arXiv:1803.00933, section 4.1)."""

from __future__ import annotations

import pytest
import torch
from coach.core.context import Context
from coach.explorations.epsilon_ladder import EpsilonLadder
from coach.functional.values import ScalarValues

DRAWS = 20_000


def share_of_others(ladder: EpsilonLadder, env: int, num_envs: int, explore: bool = True) -> float:
    """How often environment ``env`` does not take the best of four actions."""
    values = ScalarValues(torch.tensor([[0.0, 3.0, 1.0, 2.0]]).expand(DRAWS, 4))
    ids = torch.full((DRAWS,), env)
    ctx = Context(0, torch.Generator().manual_seed(env), ids, explore, num_envs)
    return float((ladder(values, ctx) != 1).float().mean())


def test_from_the_first_to_the_last() -> None:
    ladder = EpsilonLadder(epsilon=0.4, alpha=7.0)
    # 0.4 ** (1 + 7 * i / 3) for i in 0 .. 3; one random action in four is the best one.
    for env, epsilon in enumerate([0.4, 0.04715, 0.005557, 0.00065536]):
        assert share_of_others(ladder, env, 4) == pytest.approx(0.75 * epsilon, abs=0.012)
    assert share_of_others(ladder, 0, 4) > 10 * share_of_others(ladder, 2, 4)


def test_one_environment_alone_explores_most() -> None:
    assert share_of_others(EpsilonLadder(0.4), 0, 1) == pytest.approx(0.3, abs=0.012)


def test_ids_are_those_of_the_whole_run() -> None:
    """An actor with the last environments explores as they do, not as the first ones."""
    assert share_of_others(EpsilonLadder(0.4), 7, 8) < 0.01


def test_evaluation_is_greedy() -> None:
    assert share_of_others(EpsilonLadder(1.0), 0, 4, explore=False) == 0
