"""Action values as the sum of a state value and advantages."""

from __future__ import annotations

from coach.architectures.activations import Activation
from coach.architectures.dense import Dense
from coach.architectures.head import Head
from coach.core.registry import register
from coach.core.schema import Count, NonNegative
from coach.core.spec import Spec
from coach.functional.values import ScalarValues
from torch import Tensor, nn


@register("head", "dueling_q")
class DuelingQ(Head):
    """``V + A - mean(A)``, two streams (arXiv:1511.06581, eq. 9).

    Args:
        hidden: width of each stream's hidden layers; an empty list has none.
        activation: of the hidden layers.
        huber_delta: where the squared error of the loss turns linear; 0 keeps it squared.
    """

    provides = "values"

    def __init__(
        self,
        features: int,
        spec: Spec,
        hidden: list[Count] = [64],  # noqa: B006 (a schema default, never changed)
        activation: Activation = "relu",
        huber_delta: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        width = hidden[-1] if hidden else features
        self.value = nn.Sequential(Dense(features, hidden, activation), nn.Linear(width, 1))
        self.advantage = nn.Sequential(
            Dense(features, hidden, activation),
            nn.Linear(width, spec.num_actions("head dueling_q")),
        )
        self.huber_delta = huber_delta

    def forward(self, features: Tensor) -> ScalarValues:
        advantage = self.advantage(features)  # [B, A]
        mean = self.value(features) + advantage - advantage.mean(-1, keepdim=True)
        return ScalarValues(mean, self.huber_delta)
