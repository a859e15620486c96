"""Action values as heads return them, with the losses that belong to their form.

An action is *chosen* by its index, or by the probabilities of all actions: targets may bootstrap
from the best action, or from what a stochastic policy would do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from coach.functional.distributional import midpoints, project, quantile_huber
from coach.functional.scrambled import belongs
from coach.functional.targets import half_squared, huber, td_target
from torch import Tensor

V = TypeVar("V", bound="_Masked")


class Values(Protocol):
    """What Q heads return. Actions that are not allowed have the mean minus infinity."""

    #: ``[B, A]`` which actions are allowed; ``None``: all.
    allowed: Tensor | None

    @property
    def mean(self) -> Tensor:
        """``[B, A]`` expected returns."""

    @property
    def policy_mean(self) -> Tensor:
        """``[B, A]`` the mean that actions are chosen by; where it is drawn, independently."""

    def best(self) -> Tensor:
        """``[B]`` greedy action; of an ensemble, each member's ``[E, B]``."""

    def td_loss(
        self,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        later: Any,
        chosen: Tensor,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss ``[B]`` and surprise ``[B]`` (detached, non-negative: a replay priority).

        Args:
            action: ``[B]`` action taken.
            reward: ``[B]`` (n-step) reward.
            discount: ``[B]`` what the later value counts for.
            later: values of the next observation, of the same form.
            chosen: ``[B]`` action to bootstrap from, or ``[B, A]`` the probability of each; of an
                ensemble, each member's, with a leading dimension.
            rows: ``[B]`` where the memory keeps the transitions, if it does.
        """


def value_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Values ``[..., A]`` or, of distributions, ``[..., A, K]`` of the action chosen.

    Args:
        values: of all actions.
        chosen: ``[...]`` an action's index, or ``[..., A]`` the probability of each.
    """
    spread = values.dim() - chosen.dim()
    if chosen.is_floating_point():
        weight = chosen if spread == 0 else chosen.unsqueeze(-1)
        # An action that is never taken may be worth minus infinity.
        return torch.where(weight > 0, weight * values, 0.0).sum(chosen.dim() - 1)
    index = chosen.unsqueeze(-1)
    if spread == 1:
        return values.gather(-1, index).squeeze(-1)
    index = index.unsqueeze(-1).expand(*index.shape, values.shape[-1])
    return values.gather(-2, index).squeeze(-2)


class _Masked:
    """Values of which some actions can be ruled out."""

    mean: Tensor
    allowed: Tensor | None

    @property
    def policy_mean(self) -> Tensor:
        """The mean itself."""
        return self.mean

    def best(self) -> Tensor:
        """The greedy action ``[B]``."""
        return self.policy_mean.argmax(-1)

    def masked(self: V, allowed: Tensor) -> V:
        """The same values, with minus infinity for actions that are not ``allowed`` ``[B, A]``."""
        mean = torch.where(allowed, self.mean, -math.inf)
        return replace(self, mean=mean, allowed=allowed)  # type: ignore[type-var]


@dataclass
class ScalarValues(_Masked):
    """One expected return per action.

    Args:
        mean: ``[B, A]``.
        huber_delta: where the squared error turns linear; 0 keeps it squared throughout.
        allowed: ``[B, A]`` which actions are allowed.
    """

    mean: Tensor
    huber_delta: float = 1.0
    allowed: Tensor | None = None

    def td_loss(
        self,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        later: ScalarValues,
        chosen: Tensor,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Squared or Huber loss of the temporal-difference error (arXiv:1312.5602, eq. 2)."""
        taken = self.mean.gather(-1, action.unsqueeze(-1)).squeeze(-1)  # [B]
        with torch.no_grad():
            target = td_target(reward, discount, value_of(later.mean, chosen))
        error = taken - target
        return _loss(error, self.huber_delta), error.detach().abs()


@dataclass
class CategoricalValues(_Masked):
    """A distribution over fixed returns per action (arXiv:1707.06887).

    Args:
        mean: ``[B, A]``.
        log_probability: ``[B, A, K]``.
        support: ``[K]`` returns, equally spaced.
        allowed: ``[B, A]`` which actions are allowed.
    """

    mean: Tensor
    log_probability: Tensor
    support: Tensor
    allowed: Tensor | None = None

    def td_loss(
        self,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        later: CategoricalValues,
        chosen: Tensor,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy to the projected target; the surprise is the divergence of both."""
        taken = value_of(self.log_probability, action)  # [B, K]
        with torch.no_grad():
            probability = value_of(later.log_probability.exp(), chosen)
            target = project(self.support, probability, reward, discount)
        loss = -(target * taken).sum(-1)
        entropy = -torch.xlogy(target, target).sum(-1)
        return loss, (loss.detach() - entropy).clamp(min=0)


class _Quantiles(_Masked):
    """What quantiles of any kind learn by."""

    quantile: Tensor
    fraction: Tensor
    kappa: float
    share: Tensor | None

    def td_loss(
        self,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        later: _Quantiles,
        chosen: Tensor,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Quantile regression to samples of the target; the surprise is their mean distance."""
        taken = value_of(self.quantile, action)  # [B, N]
        with torch.no_grad():
            ahead = value_of(later.quantile, chosen)  # [B, M]
            target = torch.addcmul(reward[:, None], discount[:, None], ahead)
            ahead_mean = value_of(later.mean, chosen)  # [B]
        loss = quantile_huber(taken, target, self.fraction, self.kappa, later.share)
        mean = value_of(self.mean, action).detach()
        return loss, (reward + discount * ahead_mean - mean).abs()


@dataclass
class QuantileValues(_Quantiles):
    """Quantiles of the return per action (arXiv:1710.10044).

    Args:
        mean: ``[B, A]``.
        quantile: ``[B, A, N]``.
        fraction: ``[N]`` or ``[B, N]`` which quantiles these are.
        kappa: where the squared error turns linear.
        allowed: ``[B, A]`` which actions are allowed.
        share: ``[B, N]`` probability that each quantile stands for; ``None``: all the same.
    """

    mean: Tensor
    quantile: Tensor
    fraction: Tensor
    kappa: float = 1.0
    allowed: Tensor | None = None
    share: Tensor | None = None


class DrawnQuantiles(_Quantiles):
    """Quantiles of the return at fractions that are drawn when they are asked for.

    What is learned from or towards, and what actions are chosen by, are independent draws
    (arXiv:1806.06923, eq. 3 and algorithm 1): the largest of several means is too large a value of
    the same draws. Each is drawn once at most.

    Args:
        draw: from a number of fractions to that many quantiles ``[B, A, count]``, and the fractions
            ``[B, count]``.
        samples: quantiles to learn from or towards, N and N'.
        policy_samples: quantiles to choose by, K.
        kappa: where the squared error turns linear.
        allowed: ``[B, A]`` which actions are allowed.
    """

    share = None  # all quantiles stand for the same probability

    def __init__(
        self,
        draw: Callable[[int], tuple[Tensor, Tensor]],
        samples: int,
        policy_samples: int,
        kappa: float = 1.0,
        allowed: Tensor | None = None,
    ) -> None:
        self.draw, self.samples, self.policy_samples = draw, samples, policy_samples
        self.kappa, self.allowed = kappa, allowed
        self._with_gradient = torch.is_grad_enabled()

    def masked(self, allowed: Tensor) -> DrawnQuantiles:
        """The same values, of which those actions alone may be chosen that are ``allowed``."""
        return DrawnQuantiles(self.draw, self.samples, self.policy_samples, self.kappa, allowed)

    @cached_property
    def _drawn(self) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(self._with_gradient):
            return self.draw(self.samples)

    @property
    def quantile(self) -> Tensor:  # type: ignore[override]
        """``[B, A, N]``."""
        return self._drawn[0]

    @property
    def fraction(self) -> Tensor:  # type: ignore[override]
        """``[B, N]`` which quantiles these are."""
        return self._drawn[1]

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """``[B, A]`` of the quantiles."""
        return self._only_allowed(self.quantile.mean(-1))

    @cached_property
    def policy_mean(self) -> Tensor:
        """``[B, A]`` of other quantiles, which are drawn for it."""
        with torch.no_grad():
            return self._only_allowed(self.draw(self.policy_samples)[0].mean(-1))

    def _only_allowed(self, mean: Tensor) -> Tensor:
        return mean if self.allowed is None else torch.where(self.allowed, mean, -math.inf)


@dataclass
class ProposedQuantiles(QuantileValues):
    """Quantiles at fractions that are learned (arXiv:1911.02140).

    Args:
        ends: ``[B, N]`` fractions where one quantile's share ends and the next begins.
        between: ``[B, A, N - 1]`` quantiles there.
        bonus: ``[B]`` what is taken off the loss of the proposals.
    """

    ends: Tensor = field(kw_only=True)
    between: Tensor = field(kw_only=True)
    bonus: Tensor = field(kw_only=True)

    def td_loss(
        self,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        later: _Quantiles,
        chosen: Tensor,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """That of the quantiles, and of the fractions, whose gradient is known (proposition 1)."""
        loss, surprise = super().td_loss(action, reward, discount, later, chosen)
        with torch.no_grad():
            inside = value_of(self.quantile, action)  # [B, N]
            slope = 2 * value_of(self.between, action) - inside[:, :-1] - inside[:, 1:]
        return loss + (self.ends[:, :-1] * slope).sum(-1) - self.bonus, surprise


@dataclass
class EnsembleValues(_Masked):
    """Values of several networks that learn from different parts of what is seen.

    Args:
        mean: ``[B, A]`` over the members.
        every: ``[E, B, A]``.
        huber_delta: where the squared error turns linear; 0 keeps it squared throughout.
        share: probability that a member learns from a transition.
        allowed: ``[B, A]`` which actions are allowed.
        key: with `share` below 1, which of all possible choices of transitions this is.
    """

    mean: Tensor
    every: Tensor
    huber_delta: float = 1.0
    share: float = 1.0
    allowed: Tensor | None = None
    key: Tensor | None = None

    def masked(self, allowed: Tensor) -> EnsembleValues:
        """The same values, with minus infinity for actions that are not ``allowed`` ``[B, A]``."""
        every = torch.where(allowed, self.every, -math.inf)
        mean = torch.where(allowed, self.mean, -math.inf)
        return replace(self, mean=mean, every=every, allowed=allowed)

    @property
    def deviation(self) -> Tensor:
        """``[B, A]`` standard deviation over the members."""
        return self.every.std(0, correction=0).nan_to_num()

    def best(self) -> Tensor:
        """Every member's own greedy action ``[E, B]``."""
        return self.every.argmax(-1)

    def td_loss(
        self,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        later: EnsembleValues,
        chosen: Tensor,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Every member's loss towards its own target, averaged (arXiv:1602.04621, section 6.1)."""
        size = len(self.every)
        taken = value_of(self.every, action.expand(size, -1))  # [E, B]
        with torch.no_grad():
            if chosen.dim() == action.dim():  # one choice for all of them
                chosen = chosen.expand(size, *chosen.shape)
            target = td_target(reward, discount, value_of(later.every, chosen))
        error = taken - target
        loss, surprise = _loss(error, self.huber_delta), error.detach().abs()
        if self.key is not None and rows is not None:
            learns = belongs(rows, size, self.share, self.key)
            loss, surprise = loss * learns, surprise * learns
        return loss.mean(0), surprise.mean(0)


def quantile_values(
    quantile: Tensor, fraction: Tensor | None = None, kappa: float = 1.0
) -> QuantileValues:
    """Values of equally probable quantiles ``[B, A, N]``."""
    if fraction is None:
        fraction = midpoints(quantile.shape[-1], quantile.device)
    return QuantileValues(quantile.mean(-1), quantile, fraction, kappa)


def _loss(error: Tensor, delta: float) -> Tensor:
    return huber(error, delta) if delta else half_squared(error)
