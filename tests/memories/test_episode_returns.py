"""Returns to the end of an episode, against sums that are written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coach.memories.episode_returns import EpisodeReturns
from coach.memories.stripes import Stripes
from naive import SPECS, World

GAMMA = 0.9


def told(world: World, env: int, number: int, upto: int) -> tuple[float, float, np.ndarray]:
    """Return, discount and observation behind step ``number``, of the first ``upto`` steps."""
    steps = world.rows[env][:upto]
    total, weight, at = 0.0, 1.0, number
    ends = [k for k in range(number, len(steps)) if steps[k].boundary]
    last = ends[0] if ends else number
    for at in range(number, last + 1):
        total += weight * steps[at].reward
        weight *= GAMMA
    return total, weight * (not steps[at].terminated), steps[at].next_obs


@pytest.mark.parametrize("lengths", [[7] * 9, [1] * 50, [40, 3, 20]])
def test_agree_with_sums_written_out(lengths: list[int]) -> None:
    envs, held = 2, 40
    stripes, world = Stripes(SPECS["vector"], envs, held * envs), World(SPECS["vector"], envs, 3)
    returns, written = EpisodeReturns(stripes, GAMMA), 0
    for length in lengths:
        stripes.write(world.fragment(length))
        written += length
        for env in range(envs):
            oldest = written - int(stripes.counts[env])
            numbers = np.arange(oldest, written)
            index = torch.from_numpy(env * stripes.rows + numbers % stripes.rows)
            found = returns.of(index)
            wanted = [told(world, env, number, written) for number in numbers.tolist()]
            total, rest, obs = zip(*wanted)
            np.testing.assert_allclose(found["return"], total, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found["return_discount"], rest, rtol=1e-5)
            goes_on = found["return_discount"] > 0  # behind a terminal state nothing is asked for
            assert torch.equal(found["return_obs"][goes_on], torch.tensor(np.stack(obs))[goes_on])


def test_a_run_that_goes_on_finds_the_same_bits() -> None:
    stripes, world = Stripes(SPECS["vector"], 2, 80), World(SPECS["vector"], 2, 3)
    bit_by_bit = EpisodeReturns(stripes, GAMMA)
    index = torch.arange(5)
    for _ in range(4):
        stripes.write(world.fragment(9))
        bit_by_bit.of(index)
    at_once = EpisodeReturns(stripes, GAMMA)
    rows = torch.from_numpy(np.concatenate([np.arange(36), stripes.rows + np.arange(36)]))
    one, two = bit_by_bit.of(rows), at_once.of(rows)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_episode_that_was_given_up_ends_where_it_stood() -> None:
    stripes = Stripes(SPECS["vector"], 1, 50)
    world = World(SPECS["vector"], 1, 3)
    returns = EpisodeReturns(stripes, GAMMA)
    first, second = world.fragment(6), world.fragment(6)
    for fragment in (first, second):
        fragment.boundary[:] = False
        fragment.discount[:] = 1.0
    stripes.write(first)
    assert torch.equal(returns.of(torch.arange(6))["return"], first.reward[:, 0])  # goes on
    second.continues = False
    stripes.write(second)
    found = returns.of(torch.tensor([3, 5, 6]))
    one, two, three = first.reward[3:, 0].tolist()
    wanted = [one + GAMMA * (two + GAMMA * three), three, float(second.reward[0, 0])]
    assert found["return"].tolist() == pytest.approx(wanted)
    assert found["return_discount"].tolist() == pytest.approx([GAMMA**3, GAMMA, GAMMA])
    assert torch.equal(found["return_obs"][0], first.next_obs[-1, 0])
