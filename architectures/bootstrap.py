"""Values of what fragments led to, with as few evaluations as that needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from coach.architectures.outputs import Outputs
from coach.core.batch import Batch, State, map_tree
from coach.core.device import is_accelerator
from torch import Tensor


def next_values(
    network: Callable[..., Outputs], batch: Batch, value: Tensor, states: State = None
) -> Tensor:
    """Value of the true next observation of every step of a fragment.

    Mostly that is the value of the step behind it. Behind a time limit and behind the last step
    lies an observation that was never acted on, so the network is asked about these alone; on an
    accelerator about all, since what is unseen is not known there without waiting.

    Args:
        network: from observations, states and boundaries to outputs that have a value, such as a
            network with a head of that name.
        batch: fragment ``[T, N]``.
        value: ``[T, N]`` values of its observations.
        states: recurrent states after each step, ``[T * N, ...]``; left out, they are found by
            running the network over the fragment.

    Returns:
        ``[T, N]``; 0 behind a terminal state.
    """
    following = torch.empty_like(value)
    following[:-1] = value[1:]
    terminated = batch.discount == 0
    unseen = batch.boundary & ~terminated  # [T, N]
    unseen[-1] = ~terminated[-1]
    everywhere = is_accelerator(value.device)  # takes less time than waiting to know where
    if not everywhere:
        following[terminated] = 0.0
        if not bool(unseen.any()):
            return following
    if batch.state is not None and states is None:
        flat = batch.flatten()
        states = network(flat.obs, flat.state, flat.boundary).state
    if everywhere:
        after = network(batch.flatten().next_obs, states).value.view_as(value)
        return torch.where(unseen, after, following).masked_fill(terminated, 0.0)
    final = map_tree(lambda tensor: tensor[unseen], batch.next_obs)
    before = map_tree(lambda tensor: tensor[unseen.flatten()], states)
    following[unseen] = network(final, before).value
    return following
