"""The return's quantile function per discrete action, at fractions that are drawn."""

from __future__ import annotations

import math

import torch
from coach.architectures.activations import Activation
from coach.architectures.head import Head
from coach.architectures.linear import Linear
from coach.architectures.streams import ActionStreams
from coach.core.registry import register
from coach.core.schema import Count, NonNegative
from coach.core.spec import Spec
from coach.core.stream import current_stream
from coach.functional.distributional import midpoints
from coach.functional.values import DrawnQuantiles, QuantileValues, Values
from torch import Tensor, nn


class QuantileFunction(nn.Module):
    """``[B, F]`` features and fractions ``[B, N]`` to quantiles ``[B, A, N]``.

    Fractions are embedded by cosines and multiplied into the features (arXiv:1806.06923, eq. 4).

    Args:
        features: width of the features.
        cosines: how many embed a fraction.
        streams: from features to one number per action.
    """

    frequency: Tensor

    def __init__(self, features: int, cosines: int, streams: ActionStreams) -> None:
        super().__init__()
        self.embed = Linear(cosines, features)
        self.streams = streams
        frequency = math.pi * torch.arange(cosines, dtype=torch.float32)
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, features: Tensor, fraction: Tensor) -> Tensor:
        rows, count = fraction.shape
        angles = torch.cos(fraction.unsqueeze(-1) * self.frequency)  # [B, N, C]
        merged = features.unsqueeze(1) * torch.relu(self.embed(angles))  # [B, N, F]
        values: Tensor = self.streams(merged.flatten(0, 1))  # [B * N, A, 1]
        return values.view(rows, count, -1).transpose(1, 2)


@register("head", "implicit_quantile_q")
class ImplicitQuantileQ(Head):
    """IQN: quantiles at fractions drawn anew in every pass (arXiv:1806.06923).

    Predictions, targets and choices have draws of their own. While evaluating, equally spaced
    fractions take the place of drawn ones.

    Args:
        samples: fractions drawn per observation to learn, of a prediction (N) and of its target
            (N'); the paper has 64.
        policy_samples: fractions drawn per observation to choose an action by (K), while acting and
            for targets.
        cosines: how many embed a fraction.
        kappa: where the squared error of the loss turns linear; 0 is the plain quantile loss.
        hidden: widths of hidden layers, of each stream.
        dueling: streams for value and advantages (arXiv:1511.06581).
        noisy: noise that is learned in the weights (arXiv:1706.10295), which explores.
        activation: of the hidden layers.
    """

    provides = "values"
    random = True

    def __init__(
        self,
        features: int,
        spec: Spec,
        samples: Count = 32,
        policy_samples: Count = 32,
        cosines: Count = 64,
        kappa: NonNegative = 1.0,
        hidden: list[Count] = [],  # noqa: B006 (a schema default, never changed)
        dueling: bool = False,
        noisy: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        actions = spec.num_actions("head implicit_quantile_q")
        streams = ActionStreams(features, actions, 1, hidden, dueling, noisy, activation)
        self.function = QuantileFunction(features, cosines, streams)
        self.samples, self.policy_samples, self.kappa = samples, policy_samples, kappa

    def forward(self, features: Tensor) -> Values:
        stream = current_stream()

        def draw(count: int) -> tuple[Tensor, Tensor]:
            size = len(features), count
            if stream is None:
                fraction = midpoints(count, features.device).expand(size)
            else:
                fraction = torch.rand(size, generator=stream, device=features.device)
            return self.function(features, fraction), fraction

        if torch.is_inference_mode_enabled():  # acting: there is nothing but a choice to be made
            quantile, fraction = draw(self.policy_samples)
            return QuantileValues(quantile.mean(-1), quantile, fraction, self.kappa)
        return DrawnQuantiles(draw, self.samples, self.policy_samples, self.kappa)
