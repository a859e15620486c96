"""N-step targets from the values found along a sequence of steps."""

from __future__ import annotations

import torch
from torch import Tensor


def n_step_targets(
    reward: Tensor, discount: Tensor, boundary: Tensor, next_value: Tensor, n_step: int
) -> Tensor:
    """Discounted sums of up to ``n`` rewards, and the value of what lies behind the last of them.

        G(1)_t = r_t + d_t * v_t
        G(n)_t = r_t + d_t * G(n-1)_(t+1), but G(1)_t at a boundary and at the last step

    where ``v_t`` values the true next observation of step ``t``. So returns stop where an episode
    ended and where the sequence does. Source: Sutton and Barto (2018), eq. 7.1.

    Args:
        reward: ``[L, M]``.
        discount: ``[L, M]`` gamma, or 0 where the episode terminated.
        boundary: ``[L, M]`` bool, terminated or truncated.
        next_value: ``[L, M]`` value of the true next observation (of the final one at a boundary).
        n_step: rewards summed, at least 1.

    Returns:
        ``[L, M]``.
    """
    one_step = torch.addcmul(reward, discount, next_value)
    target = one_step
    for _ in range(min(n_step, len(reward)) - 1):
        further = torch.addcmul(reward[:-1], discount[:-1], target[1:])  # [L - 1, M]
        inner = torch.where(boundary[:-1], one_step[:-1], further)
        target = torch.cat([inner, one_step[-1:]])
    return target
