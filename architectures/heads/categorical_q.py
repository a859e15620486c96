"""A distribution over fixed returns per discrete action."""

from __future__ import annotations

import torch
from coach.architectures.activations import Activation
from coach.architectures.head import Head
from coach.architectures.streams import ActionStreams
from coach.core.errors import SettingError
from coach.core.registry import register
from coach.core.schema import Count
from coach.core.spec import Spec
from coach.functional.values import CategoricalValues
from torch import Tensor


@register("head", "categorical_q")
class CategoricalQ(Head):
    """C51: probabilities of equally spaced returns (arXiv:1707.06887); Rainbow with its options.

    Args:
        atoms: number of returns.
        lowest: the smallest of them; no smaller return can be represented.
        highest: the largest.
        hidden: widths of hidden layers, of each stream.
        dueling: streams for value and advantages (arXiv:1710.02298).
        noisy: noise that is learned in the weights (arXiv:1706.10295), which explores.
        activation: of the hidden layers.
    """

    provides = "values"
    support: Tensor

    def __init__(
        self,
        features: int,
        spec: Spec,
        atoms: Count = 51,
        lowest: float = -10.0,
        highest: float = 10.0,
        hidden: list[Count] = [],  # noqa: B006 (a schema default, never changed)
        dueling: bool = False,
        noisy: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        if lowest >= highest or atoms < 2:
            raise SettingError(
                "lowest",
                f"{atoms} atoms from {lowest:g} to {highest:g} span no range of returns",
                "Set lowest below highest and atoms to 2 or more.",
            )
        actions = spec.num_actions("head categorical_q")
        self.streams = ActionStreams(features, actions, atoms, hidden, dueling, noisy, activation)
        support = torch.linspace(lowest, highest, atoms)
        self.register_buffer("support", support, persistent=False)

    def forward(self, features: Tensor) -> CategoricalValues:
        log_probability = self.streams(features).log_softmax(-1)  # [B, A, K]
        return CategoricalValues(
            log_probability.exp() @ self.support, log_probability, self.support
        )
