"""Additive Gaussian noise."""

from __future__ import annotations

import torch
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.spec import Spec
from coach.functional.schedules import Schedule, as_schedule
from torch import Tensor


@register("exploration", "gaussian")
class Gaussian(Exploration):
    """Adds normal noise to a deterministic action and clips to [-1, 1] (arXiv:1802.09477).

    Reads an action, or a distribution's mode.

    Args:
        scale: standard deviation, of actions in [-1, 1] whatever the environment's bounds; a number
            or a schedule.
    """

    consumes = ("action", "distribution")

    def __init__(self, spec: Spec, scale: Schedule | float = 0.1) -> None:
        spec.bounded_actions("exploration gaussian")
        self.scale = as_schedule(scale, "scale", 0)

    def __call__(self, output: Tensor, ctx: Context) -> Tensor:
        action = output if isinstance(output, Tensor) else output.mode()
        if not ctx.explore:
            return action
        noise = ctx.normal(*action.shape) * self.scale(ctx.step)
        return torch.clamp(action + noise, -1, 1)

    def monitor(self, step: int) -> dict[str, float]:
        return {"noise": self.scale(step)}
