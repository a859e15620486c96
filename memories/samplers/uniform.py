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

    learns = False

    def draw(
        self,
        stripes: Stripes,
        count: int,
        step: int,
        rng: torch.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        drawn = torch.randint(len(stripes), (count,), generator=rng)
        if stripes.num_envs == 1:
            first = int(stripes.written[0]) - len(stripes)
            return (drawn + first) % stripes.rows if first else drawn, None
        held = stripes.counts
        ends = torch.from_numpy(held.cumsum())
        stripe = torch.searchsorted(ends, drawn, right=True)
        offset = drawn - (ends - torch.from_numpy(held))[stripe]
        oldest = torch.from_numpy(stripes.written - held)[stripe]
        return stripe * stripes.rows + (offset + oldest) % stripes.rows, None
