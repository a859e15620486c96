"""What Q-learning's target may be made of besides the reward and the value that follows.

Every rule changes ``y = reward + discount * Q(s', chosen)`` by its three parts alone, so it works
for expected values, distributions of returns and ensembles alike, and rules combine.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from coach.architectures.target import Target
from coach.core.batch import Batch
from coach.core.schema import Fraction, Positive
from coach.functional.values import value_of
from torch import Tensor


class Bootstrap:
    """A target in the making: ``y = reward + discount * Q(s', chosen)``.

    Args:
        batch: the transitions; its reward and discount are where it begins.
        chosen: the action to bootstrap from, or the probability of each.
        later: the target network's values of the next observation.
        target: the target network.
    """

    def __init__(self, batch: Batch, chosen: Tensor, later: Any, target: Target) -> None:
        self.batch, self.chosen, self.later, self.target = batch, chosen, later, target
        self.reward, self.discount = batch.reward, batch.discount

    @cached_property
    def now(self) -> Tensor:
        """``[B, A]`` the target network's values of the present observation; see `values`."""
        return self.values(self.target(self.batch.obs).q)

    @cached_property
    def ahead(self) -> Tensor:
        """``[B, A]`` the target network's values of the next observation; see `values`."""
        return self.values(self.later)

    @staticmethod
    def values(found: Any) -> Tensor:
        """Expected values ``[B, A]``; of an ensemble those of every member, ``[E, B, A]``.

        Members learn towards targets of their own (arXiv:1602.04621, section 6.1).
        """
        values: Tensor = getattr(found, "every", found.mean)
        return values

    def of(self, values: Tensor, action: Tensor) -> Tensor:
        """``[B]`` or ``[E, B]`` the ``values`` of one ``action`` ``[B]`` for every row."""
        return value_of(values, action.expand(values.shape[:-1]))


class Munchausen:
    """Adds the log-probability of what was done to the reward, and bootstraps from the policy.

        r + alpha * clip(tau * log pi(a | s), lowest, 0)
          + gamma * sum_a' pi(a' | s') * (Q_target(s', a') - tau * log pi(a' | s'))

    where ``pi = softmax(Q_target / tau)`` (arXiv:2007.14430, eq. 5; `double` has no say then).

    Args:
        alpha: how much the log-probability counts.
        temperature: tau, in units of value.
        lowest: bounds it from below.
    """

    composite: ClassVar[bool] = True

    def __init__(
        self, alpha: Fraction = 0.9, temperature: Positive = 0.03, lowest: float = -1.0
    ) -> None:
        self.alpha, self.temperature, self.lowest = alpha, temperature, lowest

    def __call__(self, aim: Bootstrap) -> None:
        tau = self.temperature
        now = (aim.now / tau).log_softmax(-1)
        told = value_of(now, aim.batch.action) * tau
        later = (aim.later.policy_mean / tau).log_softmax(-1)  # [B, A]
        aim.chosen = later.exp()
        surprise = -torch.where(aim.chosen > 0, aim.chosen * later, 0.0).sum(-1)  # entropy
        aim.reward = (
            aim.reward + self.alpha * told.clamp(self.lowest, 0) + aim.discount * tau * surprise
        )


class Advantage:
    """Advantage learning: actions that are not the best lose their gap once more.

        r + gamma * Q(s', a') - alpha * (max_b Q_target(s, b) - Q_target(s, a))

    If `persistent`, the target is the larger of this one and of the one without a switch of action
    (arXiv:1512.04860, eq. 7 and 9)

        r + gamma * Q_target(s', a)

    with the action ``a`` that was taken at ``s``. Of a distribution the mean is that target, of an
    ensemble every member has its own.

    Args:
        alpha: share of the gap.
        persistent: lose no more than if the next action were the same again.
    """

    composite: ClassVar[bool] = True

    def __init__(self, alpha: Fraction = 0.9, persistent: bool = False) -> None:
        self.alpha, self.persistent = alpha, persistent

    def __call__(self, aim: Bootstrap) -> None:
        action = aim.batch.action
        loss = self.alpha * (aim.now.amax(-1) - aim.of(aim.now, action))
        if self.persistent:
            switch = value_of(aim.ahead, aim.chosen) - aim.of(aim.ahead, action)
            # Behind a terminal state nothing counts, also where an action is not allowed (inf).
            again = torch.where(aim.discount > 0, aim.discount * switch, 0.0)
            loss = torch.minimum(loss, again)
        aim.reward = aim.reward - loss


class MonteCarlo:
    """Mixes the return that followed into the target (MMC, arXiv:1703.01310, eq. 4).

        (1 - share) * (r + gamma * Q(s', a')) + share * G

    ``G`` is the sum of rewards to the end of the episode, which the memory finds. Behind a time
    limit, and as long as the episode goes on, the target network's value stands for the rest.

    Args:
        share: of the return in the target.
    """

    composite: ClassVar[bool] = True

    def __init__(self, share: Fraction = 0.1) -> None:
        self.share = share

    def __call__(self, aim: Bootstrap) -> None:
        extras = aim.batch.extras
        last = aim.target(extras["return_obs"]).q
        rest = value_of(aim.values(last), last.best())
        received = extras["return"] + extras["return_discount"] * rest
        aim.reward = (1 - self.share) * aim.reward + self.share * received
        aim.discount = (1 - self.share) * aim.discount
