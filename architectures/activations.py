"""Activation functions and initialisers by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

Activation = Literal["relu", "tanh", "elu", "gelu", "silu", "selu", "leaky_relu", "sigmoid"]
Initializer = Literal["default", "orthogonal"]

_LAYERS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
}


def activation_layer(name: Activation) -> nn.Module:
    """A fresh layer for the name."""
    return _LAYERS[name]()


def initialized(
    layer: nn.Linear | nn.Conv2d, init: Initializer = "default", gain: float = 2**0.5
) -> nn.Module:
    """The layer with weights drawn by ``init``; orthogonal ones get zero biases and ``gain``."""
    if init == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layer
