"""Values of continuous actions, an ensemble of them in one product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from coach.architectures.activations import Activation, activation_layer
from coach.architectures.dense import as_stack, ensemble_of_stacks
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.head import Head
from coach.core.registry import register
from coach.core.schema import Count
from coach.core.spec import Spec
from gymnasium import spaces
from torch import Tensor, nn


@register("head", "continuous_q")
class ContinuousQ(Head):
    """``Q(features, action)`` of ``ensemble`` independent networks.

    Its output is a function of the action, ``[B, D]`` to ``[ensemble, B]``.

    Args:
        hidden: widths of the hidden layers.
        ensemble: number of networks (2: the twin critics of arXiv:1802.09477).
        activation: of the hidden layers.
    """

    provides = "action_values"

    def __init__(
        self,
        features: int,
        spec: Spec,
        hidden: list[Count] = [256, 256],  # noqa: B006 (a schema default, never changed)
        ensemble: Count = 2,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        spec.require_action("head continuous_q", spaces.Box)
        inputs = features + int(np.prod(spec.action.shape or ()))
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [EnsembleLinear(ensemble, inputs, width), activation_layer(activation)]
            inputs = width
        self.layers = nn.Sequential(*layers, EnsembleLinear(ensemble, inputs, 1))
        self.ensemble = ensemble

    def forward(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        def values(action: Tensor) -> Tensor:
            inputs = torch.cat([features, action], -1)  # [B, F + D]
            every: Tensor = self._hidden(inputs.expand(self.ensemble, *inputs.shape))
            return self.layers[-1](every).squeeze(-1)  # type: ignore[no-any-return]  # [E, B]

        return values

    def _hidden(self, inputs: Tensor) -> Tensor:
        # Written out, gradients of frozen weights cannot be told from wanted ones; a recording
        # leaves them out, and only on CPU there is one.
        stack = as_stack([*self.layers][:-1]) if inputs.is_cpu else None
        if stack is None:
            hidden: Tensor = self.layers[:-1](inputs)
            return hidden
        return ensemble_of_stacks(inputs, *stack)
