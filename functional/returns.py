"""Returns and advantages over time-major ``[T, N]`` tensors.

`discount` is ``gamma * (1 - terminated)`` for each step, so a terminal state counts for nothing
and a time limit still bootstraps; `boundary` marks both, so nothing flows between episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def n_step_returns(
    reward: Tensor, terminated: Tensor, boundary: Tensor, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Discounted sums of up to ``n`` rewards that stop at the first boundary.

    Source: Sutton and Barto (2018), eq. 7.1; the bootstrap term is left to the caller.

    Args:
        reward: ``[B, n]`` rewards along the stripe, from the sampled step on.
        terminated: ``[B, n]`` bool.
        boundary: ``[B, n]`` bool, terminated or truncated (or the end of what is stored).
        gamma: discount per step.

    Returns:
        ``(returns [B], discount [B], last [B])``: ``discount`` is ``gamma**k`` or 0 after a
        terminal state, ``last`` the offset (0 .. n-1) of the last step that was summed.
    """
    n = reward.shape[1]
    alive = torch.ones_like(reward)  # [B, n] 1 while no boundary lies before the step
    alive[:, 1:] = (~boundary[:, :-1]).to(reward.dtype).cumprod(1)
    powers = gamma ** torch.arange(n, dtype=reward.dtype, device=reward.device)
    returns = (reward * alive * powers).sum(1)
    last = alive.sum(1).to(torch.int64) - 1
    ended = (terminated.to(reward.dtype) * alive).sum(1)  # 1 if a terminal state was met
    discount = gamma ** (last + 1).to(reward.dtype) * (1 - ended)
    return returns, discount, last


def gae(
    reward: Tensor,
    discount: Tensor,
    boundary: Tensor,
    value: Tensor,
    next_value: Tensor,
    lambda_: float,
) -> Tensor:
    """Generalised advantage estimates (arXiv:1506.02438, eq. 16).

    Args:
        reward: ``[T, N]``.
        discount: ``[T, N]`` gamma, or 0 where the episode terminated.
        boundary: ``[T, N]`` bool; the recursion restarts after it.
        value: ``[T, N]`` value of the observation.
        next_value: ``[T, N]`` value of the true next observation (of the final one at a boundary).
        lambda_: mixture of n-step estimates, in [0, 1].

    Returns:
        ``[T, N]`` advantages; advantages + value are the returns to regress the value on.
    """
    delta = reward + discount * next_value - value  # [T, N]
    carry = discount * lambda_ * (~boundary).to(reward.dtype)  # [T, N]
    return _backwards(delta, carry)


def vtrace(
    log_ratio: Tensor,
    reward: Tensor,
    discount: Tensor,
    boundary: Tensor,
    value: Tensor,
    next_value: Tensor,
    lambda_: float = 1.0,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """V-trace targets and advantages (arXiv:1802.01561, eq. 1, section 4.2 and remark 2).

        vs_t = V_t + rho_t * delta_t + d_t * lambda * c_t * (vs_(t+1) - V_(t+1))
        A_t  = rho_t * (r_t + d_t * (lambda * vs_(t+1) + (1 - lambda) * V_(t+1)) - V_t)

    Where both policies agree, the advantages are those of `gae` and the targets are these plus the
    values; with ``lambda_`` 1 the targets are n-step returns.

    Args:
        log_ratio: ``[T, N]`` log-probability of the action under the policy that learns, minus
            that under the one that acted.
        reward: ``[T, N]``.
        discount: ``[T, N]`` gamma, or 0 where the episode terminated.
        boundary: ``[T, N]`` bool; the recursion restarts after it.
        value: ``[T, N]`` value of the observation.
        next_value: ``[T, N]`` value of the true next observation (of the final one at a boundary).
        lambda_: decay of the trace besides its clipping, in [0, 1] (remark 2).
        rho_clip: bound of the ratios that weigh temporal differences and advantages.
        c_clip: bound of the ratios that the trace is made of.

    Returns:
        ``(targets [T, N], advantages [T, N])``.
    """
    ratio = log_ratio.exp()
    rho = ratio.clamp(max=rho_clip)
    delta = rho * (reward + discount * next_value - value)  # [T, N]
    carry = discount * lambda_ * ratio.clamp(max=c_clip) * (~boundary).to(reward.dtype)
    surplus = _backwards(delta, carry)  # [T, N] targets minus values
    following = next_value.clone()
    inside = ~boundary[:-1]
    following[:-1] += lambda_ * torch.where(inside, surplus[1:], torch.zeros_like(surplus[1:]))
    return surplus + value, rho * (reward + discount * following - value)


def _backwards(delta: Tensor, carry: Tensor) -> Tensor:
    """``x_t = delta_t + carry_t * x_(t+1)`` over ``[T, N]``."""
    running = torch.zeros_like(delta[0])
    found = []
    for delta_t, carry_t in zip(reversed(delta.unbind(0)), reversed(carry.unbind(0))):
        running = torch.addcmul(delta_t, carry_t, running)
        found.append(running)
    return torch.stack(found[::-1])


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """Share of the returns' variance that the values explain; a constant value explains 0."""
    return 1 - (returns - value).var(correction=0) / returns.var(correction=0).clamp(min=1e-8)
