"""Uniformly random actions, usually to fill a replay memory first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import CountOrZero
from coach.core.spec import Spec
from coach.explorations.greedy import Greedy
from gymnasium import spaces
from torch import Tensor


@register("exploration", "uniform")
class Uniform(Exploration):
    """Random actions for the first ``steps``, then another exploration takes over.

    Reads whatever the exploration behind it reads.

    Args:
        steps: environment steps to act at random; left out, for ever.
        then: what acts afterwards, and while evaluating.
    """

    consumes = Greedy.consumes

    def __init__(
        self, spec: Spec, steps: CountOrZero | None = None, then: Exploration | None = None
    ) -> None:
        spec.require_action(
            "exploration uniform",
            spaces.Discrete,
            spaces.Box,
            spaces.MultiDiscrete,
            spaces.MultiBinary,
        )
        self.space, self.steps = spec.action, steps
        self.then = then or Greedy()
        if isinstance(self.space, spaces.Box):
            self.dimensions = spec.bounded_actions("exploration uniform")
        elif isinstance(self.space, spaces.MultiDiscrete):
            self.sizes = torch.as_tensor(self.space.nvec.reshape(-1))

    def __call__(self, output: Any, ctx: Context) -> Tensor:
        if ctx.explore and (self.steps is None or ctx.step < self.steps):
            allowed = getattr(output, "allowed", None)
            if allowed is not None:
                return ctx.any_of(allowed)
            return self._draw(len(ctx.env_ids), ctx)
        return self.then(output, ctx)

    def accepts(self) -> tuple[str, ...]:
        return self.then.accepts()

    def monitor(self, step: int) -> dict[str, float]:
        return {} if self.steps is None or step < self.steps else self.then.monitor(step)

    def _draw(self, count: int, ctx: Context) -> Tensor:
        space = self.space
        if isinstance(space, spaces.Box):
            return 2 * ctx.uniform(count, self.dimensions) - 1
        if isinstance(space, spaces.Discrete):
            return (ctx.uniform(count) * int(space.n)).long()
        if isinstance(space, spaces.MultiDiscrete):
            sizes = ctx.constant(self.sizes)
            return (ctx.uniform(count, len(sizes)) * sizes).long()
        return (ctx.uniform(count, int(np.prod(space.shape or ()))) < 0.5).long()
