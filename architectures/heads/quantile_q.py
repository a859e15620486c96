"""Quantiles of the return per discrete action."""

from __future__ import annotations

from coach.architectures.activations import Activation
from coach.architectures.head import Head
from coach.architectures.streams import ActionStreams
from coach.core.registry import register
from coach.core.schema import Count, NonNegative
from coach.core.spec import Spec
from coach.functional.values import QuantileValues, quantile_values
from torch import Tensor


@register("head", "quantile_q")
class QuantileQ(Head):
    """QR-DQN: equally probable quantiles, learned by regression (arXiv:1710.10044).

    Args:
        quantiles: how many.
        kappa: where the squared error of the loss turns linear; 0 is the plain quantile loss.
        hidden: widths of hidden layers, of each stream.
        dueling: streams for value and advantages (arXiv:1511.06581).
        noisy: noise that is learned in the weights (arXiv:1706.10295), which explores.
        activation: of the hidden layers.
    """

    provides = "values"

    def __init__(
        self,
        features: int,
        spec: Spec,
        quantiles: Count = 200,
        kappa: NonNegative = 1.0,
        hidden: list[Count] = [],  # noqa: B006 (a schema default, never changed)
        dueling: bool = False,
        noisy: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        actions = spec.num_actions("head quantile_q")
        self.streams = ActionStreams(
            features, actions, quantiles, hidden, dueling, noisy, activation
        )
        self.kappa = kappa

    def forward(self, features: Tensor) -> QuantileValues:
        return quantile_values(self.streams(features), kappa=self.kappa)
