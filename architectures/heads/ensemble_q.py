"""Values of discrete actions, several members that learn apart."""

from __future__ import annotations

from itertools import pairwise

import torch
from coach.architectures.activations import Activation, activation_layer
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.head import Head
from coach.core.registry import register
from coach.core.schema import Count, NonNegative, Share
from coach.core.spec import Spec
from coach.functional.values import EnsembleValues
from torch import Tensor, nn


@register("head", "ensemble_q")
class EnsembleQ(Head):
    """Bootstrapped DQN's heads on one trunk (arXiv:1602.04621).

    The trunk receives the mean of the members' gradients. Where members shall disagree about what
    none of them has seen, add fixed random functions to them (arXiv:1806.03335).

    Args:
        members: how many.
        share: probability that a member learns from a transition.
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
        widths = [features, *hidden, spec.num_actions("head ensemble_q")]

        def members_of() -> nn.Module:
            layers: list[nn.Module] = []
            for before, behind in pairwise(widths):
                layers += [activation_layer(activation)] * bool(layers)
                layers.append(EnsembleLinear(members, before, behind))
            return nn.Sequential(*layers)

        self.members = members_of()
        self.prior = members_of().requires_grad_(False) if prior_scale else None
        self.size, self.share = members, share
        self.prior_scale, self.huber_delta = prior_scale, huber_delta

    def forward(self, features: Tensor) -> EnsembleValues:
        spread = features.expand(self.size, *features.shape)
        every: Tensor = self.members(spread)  # [E, B, A]
        if self.prior is not None:
            with torch.no_grad():
                prior: Tensor = self.prior(spread)
            every = every + self.prior_scale * prior
        return EnsembleValues(every.mean(0), every, self.huber_delta, self.share)
