"""Action values as heads return them, with the losses that belong to their form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from coach.functional.targets import half_squared, huber, td_target
from torch import Tensor


class Values(Protocol):
    """What Q heads return; other forms (categorical, quantile) bring their own ``td_loss``."""

    mean: Tensor

    def td_loss(
        self, action: Tensor, reward: Tensor, discount: Tensor, later: Values, best: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss ``[B]`` and surprise ``[B]`` (detached, non-negative: a replay priority).

        Args:
            action: ``[B]`` action taken.
            reward: ``[B]`` (n-step) reward.
            discount: ``[B]`` what the later value counts for.
            later: values of the next observation, of the same form.
            best: ``[B]`` action to bootstrap from.
        """


@dataclass
class ScalarValues:
    """One expected return per action.

    Args:
        mean: ``[B, A]``.
        huber_delta: where the squared error turns linear; 0 keeps it squared throughout.
    """

    mean: Tensor
    huber_delta: float = 1.0

    def td_loss(
        self, action: Tensor, reward: Tensor, discount: Tensor, later: Values, best: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Squared or Huber loss of the temporal-difference error (arXiv:1312.5602, eq. 2)."""
        chosen = self.mean.gather(-1, action.unsqueeze(-1)).squeeze(-1)  # [B]
        with torch.no_grad():
            bootstrap = later.mean.gather(-1, best.unsqueeze(-1)).squeeze(-1)  # [B]
            target = td_target(reward, discount, bootstrap)
        error = chosen - target
        loss = huber(error, self.huber_delta) if self.huber_delta else half_squared(error)
        return loss, error.detach().abs()
