"""Gaussian policy squashed into [-1, 1], where bounded actions lie inside an agent."""

from __future__ import annotations

from coach.architectures.head import Head
from coach.architectures.linear import Linear
from coach.core.errors import SettingError
from coach.core.registry import register
from coach.core.spec import Spec
from coach.functional.distributions import SquashedGaussian
from torch import Tensor
from torch.nn import functional


@register("head", "squashed_gaussian")
class SquashedGaussianPolicy(Head):
    """The policy of soft actor-critic (arXiv:1812.05905, appendix C).

    Args:
        log_std_min: lower bound of the log standard deviation before squashing.
        log_std_max: upper bound.
    """

    provides = "distribution"

    def __init__(
        self, features: int, spec: Spec, log_std_min: float = -20.0, log_std_max: float = 2.0
    ) -> None:
        super().__init__()
        if log_std_min >= log_std_max:
            raise SettingError(
                "log_std_min",
                f"the lower bound {log_std_min:g} is not below log_std_max, {log_std_max:g}",
            )
        self.size = spec.bounded_actions("head squashed_gaussian")
        self.out = Linear(features, 2 * self.size)
        self.limits = (log_std_min, log_std_max)

    def forward(self, features: Tensor) -> SquashedGaussian:
        mean, log_std = self.out(features).split(self.size, -1)  # [B, D] each
        log_std = functional.hardtanh(log_std, *self.limits)  # a clamp whose gradient is one step
        return SquashedGaussian(mean, log_std)
