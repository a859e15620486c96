"""Gaussian policy over continuous actions."""

from __future__ import annotations

import numpy as np
import torch
from coach.architectures.activations import Initializer, initialized
from coach.architectures.head import Head
from coach.architectures.linear import Linear
from coach.core.registry import register
from coach.core.schema import Positive
from coach.core.spec import Spec
from coach.functional.distributions import DiagonalGaussian
from gymnasium import spaces
from torch import Tensor, nn


@register("head", "gaussian")
class GaussianPolicy(Head):
    """Independent normals with a learned mean and one learned deviation per dimension.

    Actions are in the agent's unit: [-1, 1] is the range of each bounded dimension, and what lies
    outside is clipped on its way to the environment, while the agent keeps what it drew. Dimensions
    without bounds are in the environment's own unit.

    Args:
        log_std: initial logarithm of the standard deviation, in the agent's unit.
        init: "orthogonal", or torch's "default".
        gain: of orthogonal weights of the mean.
    """

    provides = "distribution"

    def __init__(
        self,
        features: int,
        spec: Spec,
        log_std: float = 0.0,
        init: Initializer = "orthogonal",
        gain: Positive = 0.01,
    ) -> None:
        super().__init__()
        spec.require_action("head gaussian", spaces.Box)
        size = int(np.prod(spec.action.shape or ()))
        self.mean = initialized(Linear(features, size), init, gain)
        self.log_std = nn.Parameter(torch.full((size,), float(log_std)))

    def forward(self, features: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean(features), self.log_std)
