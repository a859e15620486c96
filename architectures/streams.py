"""From features to numbers per action, in one stream or two, noisy or not."""

from __future__ import annotations

from coach.architectures.activations import Activation
from coach.architectures.dense import Dense
from coach.architectures.noisy import linear
from torch import Tensor, nn


class ActionStreams(nn.Module):
    """``[B, features]`` to ``[B, actions, width]``; with `dueling`, ``V + A - mean(A)``.

    Args:
        features: width that comes in.
        actions: number of actions.
        width: numbers per action, such as atoms or quantiles.
        hidden: widths of hidden layers, of each stream.
        dueling: a stream for the state's value and one for advantages (arXiv:1511.06581, eq. 9;
            for distributions arXiv:1710.02298, section 3).
        noisy: noisy layers throughout (arXiv:1706.10295).
        activation: of the hidden layers.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        width: int = 1,
        hidden: list[int] | None = None,
        dueling: bool = False,
        noisy: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.actions, self.width = actions, width

        def stream(outputs: int) -> nn.Module:
            layers = hidden or []
            last = linear(layers[-1] if layers else features, outputs, noisy)
            return nn.Sequential(Dense(features, layers, activation, noisy=noisy), last)

        self.advantage = stream(actions * width)
        self.value = stream(width) if dueling else None

    def forward(self, features: Tensor) -> Tensor:
        advantage: Tensor = self.advantage(features).view(-1, self.actions, self.width)
        if self.value is None:
            return advantage
        value: Tensor = self.value(features).unsqueeze(1)  # [B, 1, width]
        return value + advantage - advantage.mean(1, keepdim=True)
