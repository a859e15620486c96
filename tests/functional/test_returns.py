"""Returns and advantages against hand-computed numbers and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coach.functional.returns import explained_variance, gae, n_step_returns
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor


def rows(*values: float) -> Tensor:
    return torch.tensor([values])


def flags(*values: int) -> Tensor:
    return torch.tensor([values], dtype=torch.bool)


def test_n_step_without_boundary() -> None:
    returns, discount, last = n_step_returns(
        rows(1, 2, 4), flags(0, 0, 0), flags(0, 0, 0), gamma=0.5
    )
    assert (returns.item(), discount.item(), last.item()) == (1 + 1 + 1, 0.125, 2)


def test_n_step_stops_at_a_terminal_state() -> None:
    returns, discount, last = n_step_returns(
        rows(1, 2, 4), flags(0, 1, 0), flags(0, 1, 0), gamma=0.5
    )
    assert (returns.item(), discount.item(), last.item()) == (2, 0, 1)


def test_n_step_bootstraps_at_a_time_limit() -> None:
    returns, discount, last = n_step_returns(
        rows(1, 2, 4), flags(0, 0, 0), flags(0, 1, 0), gamma=0.5
    )
    assert (returns.item(), discount.item(), last.item()) == (2, 0.25, 1)


def plain_n_step(
    reward: list[float], terminated: list[bool], boundary: list[bool], gamma: float
) -> tuple[float, float, int]:
    total = 0.0
    for k, (r, done, end) in enumerate(zip(reward, terminated, boundary)):
        total += gamma**k * r
        if end:
            return total, 0.0 if done else gamma ** (k + 1), k
    return total, gamma ** len(reward), len(reward) - 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-10, 10, width=32, allow_subnormal=False),
            st.sampled_from(["on", "end", "cut"]),
        ),
        min_size=1,
        max_size=7,
    ),
    st.floats(0, 1, allow_subnormal=False),
)
def test_n_step_equals_a_plain_loop(steps: list[tuple[float, str]], gamma: float) -> None:
    reward = [r for r, _ in steps]
    terminated = [kind == "end" for _, kind in steps]
    boundary = [kind != "on" for _, kind in steps]
    got = n_step_returns(
        torch.tensor([reward], dtype=torch.float64),
        torch.tensor([terminated]),
        torch.tensor([boundary]),
        gamma,
    )
    wanted = plain_n_step(reward, terminated, boundary, gamma)
    assert got[0].item() == pytest.approx(wanted[0], abs=1e-9)
    assert got[1].item() == pytest.approx(wanted[1], abs=1e-9)
    assert got[2].item() == wanted[2]


def test_gae_by_hand() -> None:
    # One environment, three steps; a time limit after the second.
    column = [torch.tensor(v, dtype=torch.float64)[:, None] for v in ([1, 2, 3], [0.5, 1, 2])]
    reward, value = column
    next_value = torch.tensor([[1.0], [4.0], [1.0]], dtype=torch.float64)
    discount = torch.full((3, 1), 0.5, dtype=torch.float64)
    boundary = torch.tensor([[False], [True], [False]])
    advantage = gae(reward, discount, boundary, value, next_value, lambda_=0.5)
    # delta: 1 + .5 - .5 = 1;  2 + 2 - 1 = 3;  3 + .5 - 2 = 1.5;  A0 = 1 + .25 * 3
    assert advantage[:, 0].tolist() == [1.75, 3.0, 1.5]


def test_gae_treating_a_time_limit_as_the_end_would_be_visibly_wrong() -> None:
    one = torch.ones(1, 1)
    limit = gae(one, 0.9 * one, one.bool(), 10 * one, 10 * one, 0.95)
    ended = gae(one, 0 * one, one.bool(), 10 * one, 10 * one, 0.95)
    assert limit.item() == pytest.approx(0.0, abs=1e-6)
    assert ended.item() == pytest.approx(-9.0)


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.floats(0, 1, allow_subnormal=False),
    st.integers(0, 10_000),
)
def test_gae_equals_sums_of_td_errors(steps: int, envs: int, lambda_: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, steps, envs))
    boundary = rng.random((steps, envs)) < 0.3
    discount = 0.9 * (rng.random((steps, envs)) < 0.8)
    discount[~boundary] = 0.9
    got = gae(*map(torch.from_numpy, (reward, discount, boundary, value, next_value)), lambda_)
    delta = reward + discount * next_value - value
    for env in range(envs):
        for t in range(steps):
            total, factor = 0.0, 1.0
            for k in range(t, steps):
                total += factor * delta[k, env]
                if boundary[k, env]:
                    break
                factor *= discount[k, env] * lambda_
            assert got[t, env].item() == pytest.approx(total, abs=1e-9)


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns).item() == 1
    assert explained_variance(torch.zeros(3), returns).item() == 0
    assert explained_variance(-returns, returns).item() == pytest.approx(-3)
