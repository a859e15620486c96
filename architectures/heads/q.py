"""One expected return per discrete action."""

from __future__ import annotations

from coach.architectures.head import Head
from coach.architectures.noisy import linear
from coach.core.registry import register
from coach.core.schema import NonNegative
from coach.core.spec import Spec
from coach.functional.values import ScalarValues
from torch import Tensor


@register("head", "q")
class Q(Head):
    """Action values of DQN (arXiv:1312.5602).

    Args:
        huber_delta: where the squared error of the loss turns linear; 0 keeps it squared.
        noisy: noise that is learned in the weights (arXiv:1706.10295), which explores.
    """

    provides = "values"

    def __init__(
        self, features: int, spec: Spec, huber_delta: NonNegative = 1.0, noisy: bool = False
    ) -> None:
        super().__init__()
        self.out = linear(features, spec.num_actions("head q"), noisy)
        self.huber_delta = huber_delta

    def forward(self, features: Tensor) -> ScalarValues:
        return ScalarValues(self.out(features), self.huber_delta)
