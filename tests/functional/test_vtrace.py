"""V-trace beside an independent implementation, and where it is the n-step return."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.functional.returns import vtrace
from hypothesis import given
from hypothesis import strategies as st


def case(seed: int, steps: int, envs: int, on_policy: bool) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    terminated = rng.random((steps, envs)) < 0.15
    boundary = terminated | (rng.random((steps, envs)) < 0.15)
    value = rng.normal(size=(steps, envs))
    next_value = rng.normal(size=(steps, envs))
    inside = ~boundary[:-1]
    next_value[:-1][inside] = value[1:][inside]
    log_ratio = np.zeros((steps, envs)) if on_policy else rng.normal(size=(steps, envs))
    return {
        "log_ratio": log_ratio,
        "reward": rng.normal(size=(steps, envs)),
        "discount": 0.9 * ~terminated,
        "boundary": boundary,
        "value": value,
        "next_value": next_value,
    }


def as_tensors(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def by_sums(
    arrays: dict[str, np.ndarray[Any, Any]], lambda_: float, rho_clip: float, c_clip: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The definition (arXiv:1802.01561, eq. 1) summed out for every start, nothing recursive."""
    reward, discount, boundary = arrays["reward"], arrays["discount"], arrays["boundary"]
    value, next_value = arrays["value"], arrays["next_value"]
    ratio = np.exp(arrays["log_ratio"])
    steps, envs = reward.shape
    target = np.zeros((steps, envs))
    for env in range(envs):
        for start in range(steps):
            total, weight = value[start, env], 1.0
            for t in range(start, steps):
                rho = min(rho_clip, ratio[t, env])
                error = reward[t, env] + discount[t, env] * next_value[t, env] - value[t, env]
                total += weight * rho * error
                if boundary[t, env]:
                    break
                weight *= discount[t, env] * lambda_ * min(c_clip, ratio[t, env])
            target[start, env] = total
    following = next_value.copy()
    for env in range(envs):
        for t in range(steps - 1):
            if not boundary[t, env]:
                following[t, env] = lambda_ * target[t + 1, env] + (1 - lambda_) * value[t + 1, env]
    advantage = np.minimum(rho_clip, ratio) * (reward + discount * following - value)
    return target, advantage


@given(
    st.integers(0, 10_000),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([0.5, 1.0]),
)
def test_equals_the_definition_off_policy(
    seed: int, steps: int, envs: int, lambda_: float, rho_clip: float, c_clip: float
) -> None:
    arrays = case(seed, steps, envs, on_policy=False)
    target, advantage = vtrace(
        **as_tensors(arrays), lambda_=lambda_, rho_clip=rho_clip, c_clip=c_clip
    )
    wanted = by_sums(arrays, lambda_, rho_clip, c_clip)
    np.testing.assert_allclose(target.numpy(), wanted[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(advantage.numpy(), wanted[1], rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_is_the_n_step_return_on_policy(seed: int, steps: int) -> None:
    arrays = case(seed, steps, 2, on_policy=True)
    target, advantage = vtrace(**as_tensors(arrays))
    returns = np.zeros((steps, 2))
    for env in range(2):
        behind = arrays["next_value"][-1, env]
        for t in reversed(range(steps)):
            if arrays["boundary"][t, env]:
                behind = arrays["next_value"][t, env]
            behind = arrays["reward"][t, env] + arrays["discount"][t, env] * behind
            returns[t, env] = behind
    np.testing.assert_allclose(target.numpy(), returns, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(advantage.numpy(), returns - arrays["value"], atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0, 1))
def test_on_policy_it_is_generalised_advantage_estimation(
    seed: int, steps: int, lambda_: float
) -> None:
    """With terminal states and time limits inside, for every lambda."""
    arrays = case(seed, steps, 3, on_policy=True)
    target, advantage = vtrace(**as_tensors(arrays), lambda_=lambda_)
    wanted = np.zeros((steps, 3))  # each difference summed out (arXiv:1506.02438, eq. 16)
    for env in range(3):
        for start in range(steps):
            weight = 1.0
            for t in range(start, steps):
                bootstrap = arrays["discount"][t, env] * arrays["next_value"][t, env]
                error = arrays["reward"][t, env] + bootstrap - arrays["value"][t, env]
                wanted[start, env] += weight * error
                if arrays["boundary"][t, env]:
                    break
                weight *= 0.9 * lambda_
    np.testing.assert_allclose(advantage.numpy(), wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(target.numpy(), wanted + arrays["value"], rtol=1e-9, atol=1e-9)


def test_by_hand_with_a_decaying_trace() -> None:
    """Three steps with lambda 1/2, ratios 1/2, 3 and 1, no boundary."""
    target, advantage = vtrace(
        log_ratio=torch.tensor([[0.5], [3.0], [1.0]]).log(),
        reward=torch.tensor([[2.0], [-1.0], [4.0]]),
        discount=torch.full((3, 1), 0.8),
        boundary=torch.zeros(3, 1, dtype=torch.bool),
        value=torch.tensor([[1.0], [5.0], [-2.0]]),
        next_value=torch.tensor([[5.0], [-2.0], [10.0]]),
        lambda_=0.5,
    )
    # third: delta 4 + 8 + 2 = 14; second: delta -1 - 1.6 - 5 = -7.6, plus 0.4 * 14 = -2;
    # first: delta 0.5 * (2 + 4 - 1) = 2.5, plus 0.8 * 0.5 * 0.5 * -2 = 2.1
    torch.testing.assert_close(target, torch.tensor([[3.1], [3.0], [12.0]]))
    # second: -1 + 0.8 * (0.5 * 12 + 0.5 * -2) - 5 = -2
    # first: 0.5 * (2 + 0.8 * (0.5 * 3 + 0.5 * 5) - 1) = 2.1
    torch.testing.assert_close(advantage, torch.tensor([[2.1], [-2.0], [14.0]]))


def test_by_hand() -> None:
    """Two steps, ratios 2 (clipped to 1) and 0.5, the second one terminal."""
    target, advantage = vtrace(
        log_ratio=torch.tensor([[2.0], [0.5]]).log(),
        reward=torch.tensor([[1.0], [2.0]]),
        discount=torch.tensor([[0.5], [0.0]]),
        boundary=torch.tensor([[False], [True]]),
        value=torch.tensor([[3.0], [4.0]]),
        next_value=torch.tensor([[4.0], [9.0]]),
    )
    # second: 4 + 0.5 * (2 - 4) = 3; first: 3 + (1 + 0.5 * 4 - 3) + 0.5 * (0.5 * (2 - 4)) = 2.5
    torch.testing.assert_close(target, torch.tensor([[2.5], [3.0]]))
    # first: 1 + 0.5 * 3 - 3 = -0.5; second: 0.5 * (2 - 4) = -1
    torch.testing.assert_close(advantage, torch.tensor([[-0.5], [-1.0]]))
