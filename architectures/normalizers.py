"""Running statistics as buffers: they travel with the weights and are saved with them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from coach.core.batch import Batch
from coach.core.device import upload
from gymnasium import spaces
from torch import Tensor, nn

_LEAST_VARIANCE = 1e-8  # of returns that can be told apart


class RunningMoments(nn.Module):
    """Mean and variance of a stream, merged batch by batch (Chan et al., 1983).

    Args:
        shape: shape of one item.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def update(self, items: Tensor) -> None:
        """Take in ``[M, *shape]`` items."""
        items = items.to(self.mean.dtype)  # 64 bits, where the device has them
        size = items.shape[0]
        mean, var = items.mean(0), items.var(0, correction=0)
        total = self.count + size
        delta = mean - self.mean
        spread = self.var * self.count + var * size + delta.square() * self.count * size / total
        self.mean.add_(delta * (size / total))
        self.var.copy_(spread / total)
        self.count.copy_(total)


class ObservationNormalizer(nn.Module):
    """Scales one observation key to zero mean and unit variance, clipped.

    Statistics take in a fragment after the updates that it brings (`Agent.observe`). So a rollout
    is first learned from under the statistics that its actions were drawn with, and the
    probabilities noted then are those of the policy that learns.

    Args:
        key: path into a Dict observation; empty for the whole observation.
        shape: shape of one observation.
        clip: largest magnitude handed on.
    """

    def __init__(self, key: tuple[str, ...], shape: tuple[int, ...], clip: float = 10.0) -> None:
        super().__init__()
        self.key, self.clip, self.dims = key, clip, len(shape)
        #: Of what is handed on.
        self.space = spaces.Box(-clip, clip, shape, np.float32)
        self.moments = RunningMoments(shape)

    def forward(self, obs: Tensor) -> Tensor:
        centred = obs.float() - self.moments.mean.float()
        scaled = centred * (self.moments.var.float() + 1e-8).rsqrt()
        return scaled.clamp(-self.clip, self.clip)

    def refresh(self, fragment: Batch) -> None:
        """Take in a fragment's observations."""
        obs = fragment.obs
        for name in self.key:
            obs = obs[name]
        self.moments.update(obs.flatten(0, obs.dim() - self.dims - 1).to(self.moments.mean.device))


class RewardScale(nn.Module):
    """Divides rewards by the standard deviation of the running discounted return.

    The mean is left alone: shifting rewards would change what an agent is asked to do.
    Source: Engstrom et al. (2020), arXiv:2005.12729, algorithm 1.

    Statistics take in a fragment before it is learned from (`Agent.receive`), so the scale of a
    rollout knows that rollout. Before anything varied, rewards are left as they are.

    Args:
        gamma: discount of the running return.
        clip: largest magnitude of a single reward that is handed on.
    """

    #: Refreshed before the updates that a fragment brings, rather than after them.
    before_updates: ClassVar[bool] = True
    #: Buffers that acting never reads, so that they are not handed to actors.
    learner_only: ClassVar[tuple[str, ...]] = ("running",)
    running: Tensor

    def __init__(self, gamma: float, clip: float = 10.0) -> None:
        super().__init__()
        self.gamma, self.clip = gamma, clip
        self.moments = RunningMoments(())
        self.register_buffer("running", torch.zeros(0, dtype=torch.float64))

    def forward(self, reward: Tensor) -> Tensor:
        """Scale and clip rewards of single steps, of any shape."""
        return self.of_sums(reward).clamp(-self.clip, self.clip)

    def of_sums(self, reward: Tensor) -> Tensor:
        """Scale sums of rewards, such as returns of ``n`` steps or of whole episodes.

        They are not clipped: the sum of scaled rewards is the scaled sum, of however many.
        """
        var = self.moments.var.float()
        return reward * torch.where(var > _LEAST_VARIANCE, (var + _LEAST_VARIANCE).rsqrt(), 1.0)

    def refresh(self, fragment: Batch) -> None:
        """Follow every environment's discounted return through a fragment ``[T, N]``."""
        reward = fragment.reward.to(self.running.device)
        num_envs = reward.shape[1]
        ids = fragment.env_ids if fragment.env_ids is not None else torch.arange(num_envs)
        missing = int(ids.max()) + 1 - self.running.shape[0]  # ids are on the CPU
        (ids,) = upload([ids], reward.device)
        if missing > 0:
            self.running = torch.cat([self.running, self.running.new_zeros(missing)])
        if not fragment.continues:  # unfinished episodes have been given up
            self.running[ids] = 0.0
        running, seen = self.running[ids], []
        for now, ended in zip(reward, fragment.boundary.to(reward.device)):
            running = running * self.gamma + now
            seen.append(running)
            running = running * ~ended
        self.running[ids] = running
        self.moments.update(torch.stack(seen).flatten())

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        saved = state_dict.get(f"{prefix}running")
        if saved is not None:
            self.running = self.running.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
