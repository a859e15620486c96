"""Action values as the sum of a state value and advantages."""

from __future__ import annotations

from coach.architectures.activations import Activation
from coach.architectures.head import Head
from coach.architectures.streams import ActionStreams
from coach.core.registry import register
from coach.core.schema import Count, NonNegative
from coach.core.spec import Spec
from coach.functional.values import ScalarValues
from torch import Tensor


@register("head", "dueling_q")
class DuelingQ(Head):
    """``V + A - mean(A)``, two streams (arXiv:1511.06581, eq. 9).

    Args:
        hidden: width of each stream's hidden layers; an empty list has none.
        activation: of the hidden layers.
        huber_delta: where the squared error of the loss turns linear; 0 keeps it squared.
        noisy: noise that is learned in the weights (arXiv:1706.10295), which explores.
    """

    provides = "values"

    def __init__(
        self,
        features: int,
        spec: Spec,
        hidden: list[Count] = [64],  # noqa: B006 (a schema default, never changed)
        activation: Activation = "relu",
        huber_delta: NonNegative = 1.0,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        actions = spec.num_actions("head dueling_q")
        self.streams = ActionStreams(features, actions, 1, hidden, True, noisy, activation)
        self.huber_delta = huber_delta

    def forward(self, features: Tensor) -> ScalarValues:
        return ScalarValues(self.streams(features).squeeze(-1), self.huber_delta)
