"""Expected changes of measurements per discrete action."""

from __future__ import annotations

from coach.architectures.activations import Activation
from coach.architectures.head import Head
from coach.architectures.streams import ActionStreams
from coach.core.measurements import MEASUREMENTS, entry_size
from coach.core.registry import register
from coach.core.schema import Count
from coach.core.spec import Spec
from coach.functional.futures import Futures
from torch import Tensor


@register("head", "futures")
class FutureMeasurements(Head):
    """Predictions of direct future prediction, in two streams (arXiv:1611.01779, eq. 8 and 9).

    One stream expects what happens whatever is done, the other what each action changes about it;
    over the actions the latter's mean is taken off, so that it is 0. There are as many measurements
    as the observation's entry ``measurements`` has numbers, or one where it has no such entry.

    Args:
        offsets: how many later steps it predicts; as many as the agent has offsets.
        hidden: width of each stream's hidden layers; an empty list has none.
        activation: of the hidden layers.
        noisy: noise that is learned in the weights (arXiv:1706.10295), which explores.
    """

    provides = "futures"

    def __init__(
        self,
        features: int,
        spec: Spec,
        offsets: Count = 6,
        hidden: list[Count] = [256],  # noqa: B006 (a schema default, never changed)
        activation: Activation = "relu",
        noisy: bool = False,
    ) -> None:
        super().__init__()
        actions = spec.num_actions("head futures")
        self.offsets, self.measurements = offsets, entry_size(spec, MEASUREMENTS) or 1
        width = self.offsets * self.measurements
        self.streams = ActionStreams(features, actions, width, hidden, True, noisy, activation)

    def forward(self, features: Tensor) -> Futures:
        change: Tensor = self.streams(features)  # [B, A, O * M]
        return Futures(change.view(*change.shape[:2], self.offsets, self.measurements))
