"""Additive noise that drifts, instead of being drawn anew at each step."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from coach.core.context import Context
from coach.core.device import upload
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.spec import Spec
from coach.functional.schedules import Schedule, as_schedule
from coach.functional.scrambled import scrambled
from pydantic import Field
from torch import Tensor

#: Draws that have decayed to less than this share no longer count.
_NEGLIGIBLE = 1e-3
#: What numbers from `scrambled` are below.
_RANGE = 2**31


@register("exploration", "ornstein_uhlenbeck")
class OrnsteinUhlenbeck(Exploration):
    """Adds noise ``x' = (1 - theta) x + e`` to an action and clips to [-1, 1].

    The process ``dx = -theta x dt + sigma dW`` that DDPG (arXiv:1509.02971) explores with, at steps
    of length 1: it pushes in one direction for about ``1 / theta`` steps, which moves what has
    inertia. Every episode has an independent one, in its stationary state from the first step on.

    Nothing is remembered between steps. Written out, ``x`` is a sum of past draws, of which each
    counts ``1 - theta`` times what the next one does. The draws are functions of the stream's seed,
    the environment, the episode and the step, so those that still count are made again each time.
    Where several actors run apart, their step is that of the whole run and moves by leaps between
    fragments; the noise then leaps with it.

    Reads an action, or a distribution's mode.

    Args:
        scale: a standard deviation, of actions in [-1, 1] whatever the environment's bounds; a
            number or a schedule.
        scale_of: what it is the deviation of. ``diffusion``: of ``e``, which a step adds (sigma of
            DDPG, where it is 0.2). ``stationary``: of ``x``, which is what an action is off by and
            ``1 / sqrt(1 - (1 - theta)^2)`` times as large, 1.9 times with a theta of 0.15.
        theta: share of ``x`` that is lost at each step; 1 forgets at once, as gaussian does.
    """

    consumes = ("action", "distribution")

    def __init__(
        self,
        spec: Spec,
        scale: Schedule | float = 0.2,
        theta: Annotated[float, Field(ge=0.01, le=1)] = 0.15,
        scale_of: Literal["diffusion", "stationary"] = "diffusion",
    ) -> None:
        self.dimensions = spec.bounded_actions("exploration ornstein_uhlenbeck")
        self.scale, self.theta = as_schedule(scale, "scale", 0), theta
        draws = 1 if theta == 1 else math.ceil(math.log(_NEGLIGIBLE) / math.log(1 - theta))
        weight = (1 - theta) ** torch.arange(draws, dtype=torch.float64)  # [K], the latest first
        self.weight = weight / weight.square().sum().sqrt()
        #: Deviation of ``x`` where `scale` is 1.
        self.spread = 1.0 if scale_of == "stationary" else 1 / math.sqrt(1 - (1 - theta) ** 2)

    def __call__(self, output: Tensor, ctx: Context) -> Tensor:
        action = output if isinstance(output, Tensor) else output.mode()
        if not ctx.explore:
            return action
        (process,) = upload([self._process(ctx)], action.device)
        return torch.clamp(action + process * (self.scale(ctx.step) * self.spread), -1, 1)

    def monitor(self, step: int) -> dict[str, float]:
        return {"noise": self.scale(step)}

    def _process(self, ctx: Context) -> Tensor:
        """``[N, D]`` the present state, of unit variance."""
        now = ctx.step // (ctx.num_envs or len(ctx.env_ids))
        episode = ctx.of_episode_here(_RANGE)  # [N]
        steps = scrambled(now - torch.arange(len(self.weight)))  # [K]
        keys = scrambled(episode[:, None] ^ steps)  # [N, K]
        numbers = scrambled(keys[:, None] ^ scrambled(torch.arange(self.dimensions))[:, None])
        # [N, D, K] standard normal numbers
        draws: Tensor = torch.special.ndtri((numbers.double() + 0.5) / _RANGE)
        state: Tensor = (draws @ self.weight).float()
        return state
