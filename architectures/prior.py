"""Fixed random functions of the observation, which what is learned is a correction to."""

from __future__ import annotations

import torch
from coach.architectures.trunk import Trunk
from torch import Tensor, nn


class Prior(nn.Module):
    """A network of its own that nothing moves once it has been drawn (arXiv:1806.03335).

    It shares nothing with the network that learns: it has embedders of its own, and reads
    observations as they are, since running statistics would move. It is saved, restored and
    broadcast with the weights. It has no gradient, and a target network's copy is the same.

    Args:
        trunk: embedders, without middleware that remembers.
        layers: from their features to what is returned.
    """

    def __init__(self, trunk: Trunk, layers: nn.Module) -> None:
        super().__init__()
        self.trunk, self.layers = trunk, layers
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, parts: list[Tensor]) -> Tensor:
        """From the leaves of observations ``[B, ...]`` to what ``layers`` make of them."""
        features, _ = self.trunk(parts, None, None)
        value: Tensor = self.layers(features)
        return value


def learned(network: nn.Module) -> list[nn.Parameter]:
    """All parameters of a network but those of its priors, whether they are being trained or not.

    In a process that only acts, no parameter asks for a gradient, so that does not tell them apart.
    """
    priors = [module for module in network.modules() if isinstance(module, Prior)]
    fixed = {id(parameter) for prior in priors for parameter in prior.parameters()}
    return [parameter for parameter in network.parameters() if id(parameter) not in fixed]
