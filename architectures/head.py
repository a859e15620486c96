"""The head contract: features to a typed output that knows its own maths."""

from __future__ import annotations

from typing import Any, ClassVar

from coach.architectures.prior import Prior
from coach.architectures.trunk import Trunk
from torch import Tensor, nn


class Head(nn.Module):
    """Maps features ``[B, features]`` to an output.

    Constructors take ``features`` and ``spec`` (injected) and their own settings.
    ``provides`` names the kind of output, so that agents and explorations can be checked against
    it before a run starts: "values", "distribution", "action_values", "value" or "action". What it
    can be used as besides is named in ``also``.
    """

    kind: ClassVar[str] = "head"
    injected = frozenset({"features", "spec"})
    provides: ClassVar[str]
    also: ClassVar[tuple[str, ...]] = ()
    #: Whether it draws random numbers when it runs, see `coach.core.stream`.
    random: ClassVar[bool] = False
    #: Whether it adds a fixed random function of the observation. Then its network makes one with
    #: `make_prior`, and hands what that says of the observations to `forward` as a second argument.
    wants_prior: bool = False

    def make_prior(self, trunk: Trunk) -> Prior:
        """A fixed random function whose embedders are ``trunk``."""
        raise TypeError(f"{type(self).__name__} must define `make_prior`")

    def forward(self, features: Tensor) -> Any:
        """Features ``[B, features]`` to this head's output."""
        raise TypeError(f"{type(self).__name__} must define `forward`")
