"""Values of discrete actions, several members that learn apart."""

from __future__ import annotations

from itertools import pairwise

import torch
from coach.architectures.activations import Activation, activation_layer
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.head import Head
from coach.architectures.prior import Prior
from coach.architectures.trunk import Trunk
from coach.core.errors import CoachError
from coach.core.registry import register
from coach.core.schema import Count, NonNegative, Share
from coach.core.spec import Spec
from coach.functional.values import EnsembleValues
from torch import Tensor, nn


@register("head", "ensemble_q")
class EnsembleQ(Head):
    """Bootstrapped DQN's heads on one trunk (arXiv:1602.04621).

    The trunk receives the mean of the members' gradients. Where members shall disagree about what
    none of them has seen, add fixed random functions to them (arXiv:1806.03335): member ``k`` is
    then ``f_k(features) + prior_scale * p_k(observation)``. The ``p_k`` have an embedder of their
    own, of the same kind as the network's, and layers like those of the members. Middleware and
    running statistics have no part in them, so nothing ever moves them.

    Args:
        members: how many.
        share: probability that a member learns from a transition. Which ones follows from the run's
            seed and from where the memory keeps them.
        hidden: widths of each member's hidden layers.
        prior_scale: of the fixed random function that each member is a correction to; 0 has none.
        huber_delta: where the squared error of the loss turns linear; 0 keeps it squared.
        activation: of the hidden layers.
    """

    provides = "ensemble_values"
    also = ("values",)

    def __init__(
        self,
        features: int,
        spec: Spec,
        members: Count = 10,
        share: Share = 1.0,
        hidden: list[Count] = [],  # noqa: B006 (a schema default, never changed)
        prior_scale: NonNegative = 0.0,
        huber_delta: NonNegative = 1.0,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.widths = [*hidden, spec.num_actions("head ensemble_q")]
        self.size, self.share, self.activation = members, share, activation
        self.members = self._layers(features)
        self.wants_prior = prior_scale > 0
        self.prior_scale, self.huber_delta = prior_scale, huber_delta
        #: Drawn with the weights and saved with them, so that masks follow from the run's seed.
        self.key: Tensor | None
        self.register_buffer("key", torch.randint(2**31, ()) if share < 1 else None)

    def make_prior(self, trunk: Trunk) -> Prior:
        return Prior(trunk, self._layers(trunk.features))

    def forward(self, features: Tensor, prior: Tensor | None = None) -> EnsembleValues:
        every: Tensor = self.members(features)  # [E, B, A]
        if prior is not None:
            every = every + self.prior_scale * prior
        elif self.wants_prior:
            raise CoachError("Head ensemble_q has a prior_scale, but was called without a prior.")
        return EnsembleValues(every.mean(0), every, self.huber_delta, self.share, key=self.key)

    def _layers(self, features: int) -> nn.Module:
        """Layers of all members, ``[B, features]`` to ``[E, B, A]``."""
        layers: list[nn.Module] = []
        for before, behind in pairwise([features, *self.widths]):
            layers += [activation_layer(self.activation)] * bool(layers)
            layers.append(EnsembleLinear(self.size, before, behind))
        return _Spread(self.size, layers)


class _Spread(nn.Sequential):
    """Layers of several members, which all begin with the same features."""

    def __init__(self, size: int, layers: list[nn.Module]) -> None:
        super().__init__(*layers)
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        every: Tensor = features.expand(self.size, *features.shape)
        for layer in self:
            every = layer(every)
        return every
