"""First priorities of transitions, from the values that were noted while acting."""

from __future__ import annotations

import torch
from coach.core.batch import Batch
from coach.functional.returns import n_step_returns
from torch import Tensor

UNKNOWN = -1.0


def first_errors(fragment: Batch, gamma: float, n_step: int) -> Tensor | None:
    """Size of the n-step temporal difference of every transition (arXiv:1803.00933, appendix F).

    Returns are cut at the last step of the fragment, whose value is known, and so are shorter
    there; the last step itself has nothing behind it and stays unknown, unless it is terminal.

    Args:
        fragment: ``[T, N]`` with extras ``action_value`` (of the action taken) and ``value`` (of
            the best one).
        gamma: discount per step.
        n_step: rewards summed before bootstrapping.

    Returns:
        ``[N * T]`` in the order of `Stripes.write`, negative where unknown; ``None`` where nothing
        was noted.
    """
    if "action_value" not in fragment.extras:
        return None
    steps, envs = fragment.reward.shape
    taken, best = fragment.extras["action_value"].T, fragment.extras["value"].T  # [N, T]
    start = torch.arange(steps)
    window = (start[:, None] + torch.arange(n_step)).clamp(max=steps - 1)  # [T, n]
    # The value behind the last step is not known, so returns end one step earlier.
    cut = fragment.boundary.T[:, window] | (window >= steps - 2)  # [N, T, n]
    returns, discount, last = n_step_returns(
        fragment.reward.T[:, window].flatten(0, 1),
        (fragment.discount == 0).T[:, window].flatten(0, 1),
        cut.flatten(0, 1),
        gamma,
    )
    end = start.repeat(envs) + last  # [N * T] step that each return ends with
    env = torch.arange(envs).repeat_interleave(steps)
    terminal = discount == 0
    known = terminal | (~fragment.boundary[end, env] & (end < steps - 1))
    behind = best[env, (end + 1).clamp(max=steps - 1)]
    error = (returns + torch.where(terminal, 0.0, discount * behind) - taken.flatten()).abs()
    return torch.where(known, error, torch.full_like(error, UNKNOWN))
