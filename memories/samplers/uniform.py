"""Every transition equally likely."""

from __future__ import annotations

import torch
from coach.core.registry import register
from coach.memories.sampler import Sampler
from coach.memories.stripes import Stripes
from torch import Tensor


@register("sampler", "uniform")
class Uniform(Sampler):
    """Draws with replacement, every stored transition equally likely."""

    def draw(
        self,
        stripes: Stripes,
        count: int,
        step: int,
        rng: torch.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        return stripes.draw_uniform(count, rng), None
