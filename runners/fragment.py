"""The tensors of one fragment, allocated once and filled row by row."""

from __future__ import annotations

from typing import Any

import torch
from coach.core.batch import Batch, map_tree
from coach.core.layout import (
    Zeros,
    action_layout,
    allocate,
    as_numpy,
    assigner,
    observation_layout,
    zeros,
)
from coach.core.spec import Spec
from coach.environments.vector import Step
from torch import Tensor


class FragmentBuffer:
    """A fragment ``[length, N]`` that is written anew each time.

    Args:
        spec: of one environment.
        length: steps.
        env_ids: ``[N]`` global ids of the environments.
        acted: example of what the agent records with each action, ``[N, ...]`` by name.
        state: example of its recurrent state.
        zeros: makes the tensors.
    """

    def __init__(
        self,
        spec: Spec,
        length: int,
        env_ids: Tensor,
        acted: dict[str, Tensor],
        state: Any = None,
        zeros: Zeros = zeros,
    ) -> None:
        count = len(env_ids)
        observation = observation_layout(spec.observation)
        self.length = length
        self.batch = Batch(
            obs=allocate(observation, length, count, zeros=zeros),
            action=allocate(action_layout(spec.action), length, count, zeros=zeros),
            reward=zeros((length, count), torch.float32),
            discount=zeros((length, count), torch.float32),
            next_obs=allocate(observation, length, count, zeros=zeros),
            boundary=zeros((length, count), torch.bool),
            # Sorted, so that both sides of a shared block lay them out alike.
            extras={n: zeros((length, *v.shape), v.dtype) for n, v in sorted(acted.items())},
            state=map_tree(lambda t: zeros(tuple(t.shape), t.dtype), state),
            env_ids=env_ids,
        )
        self._extras: dict[str, Any] = as_numpy(self.batch.extras)
        self._obs, self._next_obs = as_numpy(self.batch.obs), as_numpy(self.batch.next_obs)
        self._action, self._reward = self.batch.action.numpy(), self.batch.reward.numpy()
        self._discount, self._boundary = self.batch.discount.numpy(), self.batch.boundary.numpy()
        self._assign = assigner(self._obs)

    def begin(self, t: int, obs: Any, action: Any) -> None:
        """Note what is acted on and how; before the step, for environments reuse their arrays."""
        self._assign(self._obs, t, obs)
        self._action[t] = action

    def finish(self, t: int, step: Step, extras: dict[str, Tensor]) -> Any:
        """Note what came of it; returns which environments' episodes ended."""
        self._reward[t] = step.reward
        self._discount[t] = ~step.terminated
        self._boundary[t] = ended = step.terminated | step.truncated
        self._assign(self._next_obs, t, step.next_obs)
        for name, value in extras.items():
            self._extras[name][t] = value.cpu().numpy()
        return ended
