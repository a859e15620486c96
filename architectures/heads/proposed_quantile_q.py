"""The return's quantile function per discrete action, at fractions that a network proposes."""

from __future__ import annotations

import torch
from coach.architectures.activations import Activation
from coach.architectures.head import Head
from coach.architectures.heads.implicit_quantile_q import QuantileFunction
from coach.architectures.linear import Linear
from coach.architectures.streams import ActionStreams
from coach.core.registry import register
from coach.core.schema import Count, NonNegative, Positive
from coach.core.spec import Spec
from coach.functional.values import ProposedQuantiles
from torch import Tensor


@register("head", "proposed_quantile_q")
class ProposedQuantileQ(Head):
    """FQF: a quantile function at fractions that are learned (arXiv:1911.02140).

    Targets average over the fractions as their probabilities say; the paper counts each alike.

    Args:
        fractions: how many the network proposes.
        cosines: how many embed a fraction.
        kappa: where the squared error of the loss turns linear; 0 is the plain quantile loss.
        proposal_rate: how fast the proposals learn beside the rest of the network; the paper has a
            far smaller learning rate for them.
        entropy_coefficient: keeps the proposals apart.
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
        fractions: Count = 32,
        cosines: Count = 64,
        kappa: NonNegative = 1.0,
        proposal_rate: Positive = 0.01,
        entropy_coefficient: NonNegative = 0.001,
        hidden: list[Count] = [],  # noqa: B006 (a schema default, never changed)
        dueling: bool = False,
        noisy: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        actions = spec.num_actions("head proposed_quantile_q")
        streams = ActionStreams(features, actions, 1, hidden, dueling, noisy, activation)
        self.function = QuantileFunction(features, cosines, streams)
        self.propose = Linear(features, fractions)
        self.kappa, self.rate = kappa, proposal_rate
        self.entropy_coefficient = entropy_coefficient

    def forward(self, features: Tensor) -> ProposedQuantiles:
        # Optimisers that divide by the gradient's size would undo a smaller loss, so the
        # proposals' logits are made to move more slowly themselves.
        logits = self.rate * self.propose(features.detach())
        # Never in half precision (autocast): cosines of fractions take three digits off them.
        precise = torch.promote_types(logits.dtype, torch.float32)
        log_probability = logits.log_softmax(-1, dtype=precise)  # [B, N]
        probability = log_probability.exp()
        ends = probability.cumsum(-1)  # tau_1 ... tau_N
        middle = (ends - 0.5 * probability).detach()
        quantile = self.function(features, middle)  # [B, A, N]
        with torch.no_grad():
            between = self.function(features, ends[:, :-1].detach())  # [B, A, N - 1]
        entropy = -(probability * log_probability).sum(-1)
        share = probability.detach()
        return ProposedQuantiles(
            mean=(quantile * share.unsqueeze(1)).sum(-1),
            quantile=quantile,
            fraction=middle,
            kappa=self.kappa,
            share=share,
            ends=ends,
            between=between,
            bonus=self.entropy_coefficient * entropy,
        )
