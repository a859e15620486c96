"""Noise in the network's weights, as much as the policy can bear."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from coach.architectures.network import Network
from coach.architectures.outputs import Outputs
from coach.architectures.prior import learned
from coach.core.batch import State
from coach.core.context import Context
from coach.core.device import widest
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Count, Positive
from coach.functional.schedules import Linear, Schedule, as_schedule
from coach.functional.scrambled import scrambled
from coach.functional.values import Values
from torch import Tensor

_SIGMA = "parameter_noise.sigma"
_DISTANCE = "parameter_noise.distance"  # summed over the steps since sigma was last adapted
_STEPS = "parameter_noise.steps"  # how many they are
_FACTOR = 1.01  # by which sigma grows or shrinks (arXiv:1706.01905, section 3)


@register("exploration", "parameter_noise")
class ParameterNoise(Exploration):
    """Acts greedily on weights ``w + sigma * e``, ``e`` drawn per episode (arXiv:1706.01905).

    ``sigma`` adapts once every ``adapt_every`` steps: it grows if the disturbed policy was nearer
    to the undisturbed one than an epsilon-greedy policy would be, and shrinks if it was farther
    (section 3 and appendix C). Both policies are softmaxes of the values. Their distance is the
    divergence, here its mean over all observations of these steps; epsilon-greedy's is
    ``-log(1 - epsilon + epsilon / A)``. All environments of an actor share the noise, which is
    another when the first of them begins an episode. Layer normalisation makes weights alike
    sensitive. Fixed random functions of a network (arXiv:1806.03335) stay as they are.

    Reads values, of a network that the agent lets it disturb.

    Args:
        epsilon: as much exploration as epsilon-greedy with this number; a number or a schedule.
        sigma: standard deviation to begin with.
        adapt_every: steps of an environment between two changes of sigma.
    """

    consumes = ("values",)
    disturbs = True

    def __init__(
        self,
        epsilon: Schedule | float = Linear(0.5, 0.02, 10_000),
        sigma: Positive = 0.05,
        adapt_every: Count = 50,
    ) -> None:
        self.epsilon = as_schedule(epsilon, "epsilon", 0, 1)
        self.sigma, self.adapt_every = sigma, adapt_every
        self._copy: Network | None = None
        self._pairs: list[tuple[Tensor, Tensor]] = []  # weights of the network and of the copy
        self._noise: list[Tensor] = []
        self._of = -1  # which episode the noise is for

    def outputs(self, network: Network, obs: Any, state: State, ctx: Context) -> Outputs:
        plain: Outputs = network(obs, state)
        if not ctx.explore:
            return plain
        sigma = ctx.notes.setdefault(_SIGMA, torch.tensor(self.sigma, dtype=torch.float64))
        disturbed: Outputs = self._disturbed(network, float(sigma), ctx)(obs, state)
        self._adapt(sigma, plain.q.mean.log_softmax(-1), disturbed.q.mean.log_softmax(-1), ctx)
        return disturbed

    def __call__(self, output: Values, ctx: Context) -> Tensor:
        return output.mean.argmax(-1)

    def monitor(self, step: int) -> dict[str, float]:
        return {"epsilon": self.epsilon(step)}

    def _adapt(self, sigma: Tensor, plain: Tensor, disturbed: Tensor, ctx: Context) -> None:
        """Note how far apart two policies ``[N, A]`` are; change ``sigma`` when it is time."""
        distance = ctx.notes.setdefault(_DISTANCE, torch.zeros((), dtype=torch.float64))
        if distance.device != plain.device:  # added up there, so that no step waits for it
            distance = distance.to(plain.device, widest(plain.device))
            ctx.notes[_DISTANCE] = distance
        steps = ctx.notes.setdefault(_STEPS, torch.zeros((), dtype=torch.int64))
        # Of actions that are not allowed both are minus infinity.
        distance += (plain.exp() * (plain - disturbed).nan_to_num(0.0)).sum(-1).mean()
        steps += 1
        if int(steps) < self.adapt_every:
            return
        actions, epsilon = plain.shape[-1], self.epsilon(ctx.step)
        wanted = -math.log(1 - epsilon + epsilon / actions)
        sigma *= _FACTOR if float(distance) / int(steps) < wanted else 1 / _FACTOR
        distance.zero_(), steps.zero_()

    def _disturbed(self, network: Network, sigma: float, ctx: Context) -> Network:
        """The network with noise in its weights as they are now."""
        if self._copy is None:
            self._copy = copy.deepcopy(network).requires_grad_(False)
            self._pairs = list(zip(learned(network), learned(self._copy)))
        weights = [theirs.detach() for theirs, _ in self._pairs]
        episode = 0 if ctx.episodes is None else ctx.episodes()[0]
        key = int(scrambled(torch.tensor(int(ctx.env_ids[0]) * 1_000_003 + episode)))
        key ^= ctx.rng.initial_seed() % 2**31
        if key != self._of:
            device = weights[0].device
            stream = torch.Generator(device).manual_seed(key)
            self._noise = [torch.randn(p.shape, generator=stream, device=device) for p in weights]
            self._of = key
        moved = torch._foreach_add(weights, self._noise, alpha=sigma)
        torch._foreach_copy_([mine.data for _, mine in self._pairs], moved)
        if any(True for _ in network.buffers()):  # running statistics
            for mine, theirs in zip(self._copy.buffers(), network.buffers()):
                mine.copy_(theirs)
        return self._copy

    def __deepcopy__(self, memo: dict[int, Any]) -> ParameterNoise:
        return ParameterNoise(self.epsilon, self.sigma, self.adapt_every)
