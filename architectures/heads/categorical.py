"""Policy over discrete choices."""

from __future__ import annotations

import numpy as np
from coach.architectures.activations import Initializer, initialized
from coach.architectures.head import Head
from coach.architectures.linear import Linear
from coach.core.registry import register
from coach.core.schema import Positive
from coach.core.spec import Spec
from coach.functional.distributions import Categorical, MultiCategorical
from gymnasium import spaces
from torch import Tensor


@register("head", "categorical")
class CategoricalPolicy(Head):
    """Softmax over one discrete choice, or several independent ones.

    Serves Discrete, MultiDiscrete and MultiBinary actions (each bit is a choice out of two).

    Args:
        init: "orthogonal", or torch's "default".
        gain: of orthogonal weights; a small one starts close to uniform.
    """

    provides = "distribution"

    def __init__(
        self,
        features: int,
        spec: Spec,
        init: Initializer = "orthogonal",
        gain: Positive = 0.01,
    ) -> None:
        super().__init__()
        spec.require_action(
            "head categorical", spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary
        )
        self.sizes: tuple[int, ...] = ()
        if isinstance(spec.action, spaces.Discrete):
            outputs = int(spec.action.n)
        else:
            self.sizes = (
                tuple(int(size) for size in spec.action.nvec.reshape(-1))
                if isinstance(spec.action, spaces.MultiDiscrete)
                else (2,) * int(np.prod(spec.action.shape or ()))
            )
            outputs = sum(self.sizes)
        self.out = initialized(Linear(features, outputs), init, gain)

    def forward(self, features: Tensor) -> Categorical | MultiCategorical:
        logits = self.out(features)
        return MultiCategorical(logits, self.sizes) if self.sizes else Categorical(logits)
