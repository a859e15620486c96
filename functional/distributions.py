"""Action distributions, written with as few tensor operations as they need.

All of them answer ``sample(ctx)``, ``mode()``, ``log_prob(action)`` and ``entropy()``; log-probs
and entropies are ``[B]``. `torch.distributions` does the same at several times the cost for the
small batches that acting consists of; the tests compare the two.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from coach.core.context import Context
from torch import Tensor
from torch.nn import functional

#: A logit whose probability is 0, but finite, as entropies want it.
_NEVER = -1e8
LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """What policy heads return."""

    def sample(self, ctx: Context) -> Tensor:
        """An action per row, drawn from ``ctx.rng``."""

    def mode(self) -> Tensor:
        """The most probable action per row."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability (or density) of each row's action, ``[B]``."""

    def entropy(self) -> Tensor:
        """Entropy of each row, in nats, ``[B]``."""


class Categorical:
    """One choice out of ``A``.

    Args:
        logits: ``[B, A]``, not necessarily normalised.
        allowed: ``[B, A]`` which choices are allowed, if not all; the logits heed it already.
    """

    def __init__(self, logits: Tensor, allowed: Tensor | None = None) -> None:
        self.logits, self.allowed = logits, allowed
        self.log_probs = functional.log_softmax(logits, -1)  # [B, A]

    def sample(self, ctx: Context) -> Tensor:
        return ctx.draw(self.logits)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def masked(self, allowed: Tensor) -> Categorical:
        """The same without the actions that are not ``allowed`` ``[B, A]`` (arXiv:2006.14171)."""
        return Categorical(torch.where(allowed, self.logits, _NEVER), allowed)


class MultiCategorical:
    """Several independent choices; also bits, as choices out of two.

    Args:
        logits: ``[B, sum(sizes)]``.
        sizes: number of options of each choice.
    """

    def __init__(self, logits: Tensor, sizes: tuple[int, ...]) -> None:
        self.parts = [Categorical(part) for part in torch.split(logits, list(sizes), -1)]

    def sample(self, ctx: Context) -> Tensor:
        return torch.stack([part.sample(ctx) for part in self.parts], -1)

    def mode(self) -> Tensor:
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        chosen = action.long().unbind(-1)
        return torch.stack([p.log_prob(a) for p, a in zip(self.parts, chosen)]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)


class DiagonalGaussian:
    """Independent normal numbers.

    Args:
        mean: ``[B, D]``.
        log_std: ``[B, D]`` or ``[D]``.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std.expand_as(mean)

    def sample(self, ctx: Context) -> Tensor:
        noise = ctx.normal(*self.mean.shape)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        scaled = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * scaled.square() - self.log_std).sum(-1) - 0.5 * LOG_2PI * action.shape[-1]

    def entropy(self) -> Tensor:
        return self.log_std.sum(-1) + 0.5 * (1 + LOG_2PI) * self.mean.shape[-1]


class SquashedGaussian:
    """A diagonal Gaussian through tanh (arXiv:1812.05905, appendix C).

    Actions lie in [-1, 1], and the density is that of such actions: it includes the Jacobian of
    tanh, but not what the environment's bounds make of them.

    Args:
        mean: ``[B, D]`` before squashing.
        log_std: ``[B, D]``.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.inner = DiagonalGaussian(mean, log_std)

    def sample(self, ctx: Context) -> Tensor:
        return self.inner.sample(ctx).tanh()

    def sample_with_log_prob(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A reparametrised sample ``[B, D]`` and its log-density ``[B]``; tanh is not inverted."""
        mean, log_std = self.inner.mean, self.inner.log_std
        noise = torch.randn(mean.shape, generator=rng, device=mean.device)
        raw = torch.addcmul(mean, log_std.exp(), noise)
        # Half of what depends on the draw: (x + log(1 + e^-2x)) - log_std / 2 - noise^2 / 4.
        half = torch.sub(raw, functional.softplus(raw, beta=-2.0), alpha=2.0)
        half = torch.sub(half, log_std, alpha=0.5).addcmul(noise, noise, value=-0.25)
        rest = (0.5 * LOG_2PI + 2 * math.log(2)) * raw.shape[-1]
        return raw.tanh(), 2 * half.sum(-1) - rest

    def mode(self) -> Tensor:
        return self.inner.mean.tanh()

    def log_prob(self, action: Tensor) -> Tensor:
        limit = 1 - torch.finfo(action.dtype).eps
        raw = action.clamp(-limit, limit).atanh()
        # log(1 - tanh(x)^2) = 2 * (log 2 - x - softplus(-2x)), stable for large |x|
        jacobian = 2 * (math.log(2) - raw - functional.softplus(-2 * raw)).sum(-1)
        return self.inner.log_prob(raw) - jacobian

    def entropy(self) -> Tensor:
        """Entropy before squashing, an upper bound: there is no closed form."""
        return self.inner.entropy()
