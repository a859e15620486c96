"""Noise in the network's weights, as much as the policy can bear."""

from __future__ import annotations

import copy
from typing import Any

import torch
from coach.architectures.network import Network
from coach.architectures.outputs import Outputs
from coach.core.batch import State
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Positive
from coach.functional.schedules import Linear, Schedule, as_schedule
from coach.functional.scrambled import scrambled
from coach.functional.values import Values
from torch import Tensor

_SIGMA = "parameter_noise.sigma"
_STEP = 1.01  # by which the deviation grows or shrinks with each step


@register("exploration", "parameter_noise")
class ParameterNoise(Exploration):
    """Acts greedily on weights ``w + sigma * e``, ``e`` drawn per episode (arXiv:1706.01905).

    ``sigma`` adapts: it grows while the disturbed policy is nearer to the undisturbed one than an
    epsilon-greedy policy would be, and shrinks while it is farther (section 3 and appendix C: both
    policies are softmaxes of the values, their distance is the divergence, and epsilon-greedy's is
    ``-log(1 - epsilon + epsilon / A)``). All environments of an actor share the noise, which is
    another when the first of them begins an episode. Layer normalisation makes weights alike
    sensitive.

    Reads values, of a network that the agent lets it disturb.

    Args:
        epsilon: as much exploration as epsilon-greedy with this number; a number or a schedule.
        sigma: standard deviation to begin with.
    """

    consumes = ("values",)
    disturbs = True

    def __init__(
        self, epsilon: Schedule | float = Linear(0.5, 0.02, 10_000), sigma: Positive = 0.05
    ) -> None:
        self.epsilon = as_schedule(epsilon, "epsilon", 0, 1)
        self.sigma = sigma
        self._copy: Network | None = None
        self._noise: list[Tensor] = []
        self._of = -1  # which episode the noise is for

    def outputs(self, network: Network, obs: Any, state: State, ctx: Context) -> Outputs:
        plain: Outputs = network(obs, state)
        if not ctx.explore:
            return plain
        sigma = ctx.notes.setdefault(_SIGMA, torch.tensor(self.sigma, dtype=torch.float64))
        disturbed: Outputs = self._disturbed(network, float(sigma), ctx)(obs, state)
        told, done = plain.q.mean.log_softmax(-1), disturbed.q.mean.log_softmax(-1)
        # Of actions that are not allowed both are minus infinity.
        distance = (told.exp() * (told - done).nan_to_num(0.0)).sum(-1).mean()
        actions, epsilon = told.shape[-1], self.epsilon(ctx.step)
        wanted = -torch.log(torch.tensor(1 - epsilon + epsilon / actions))
        sigma *= _STEP if float(distance) < float(wanted) else 1 / _STEP
        return disturbed

    def __call__(self, output: Values, ctx: Context) -> Tensor:
        return output.mean.argmax(-1)

    def monitor(self, step: int) -> dict[str, float]:
        return {"epsilon": self.epsilon(step)}

    def _disturbed(self, network: Network, sigma: float, ctx: Context) -> Network:
        """The network with noise in its weights as they are now."""
        parameters = [p.detach() for p in network.parameters()]
        if self._copy is None:
            self._copy = copy.deepcopy(network).requires_grad_(False)
        episode = 0 if ctx.episodes is None else ctx.episodes()[0]
        key = int(scrambled(torch.tensor(int(ctx.env_ids[0]) * 1_000_003 + episode)))
        key ^= ctx.rng.initial_seed() % 2**31
        if key != self._of:
            device = parameters[0].device
            stream = torch.Generator(device).manual_seed(key)
            self._noise = [
                torch.randn(p.shape, generator=stream, device=device) for p in parameters
            ]
            self._of = key
        moved = torch._foreach_add(parameters, self._noise, alpha=sigma)
        torch._foreach_copy_([p.data for p in self._copy.parameters()], moved)
        if any(True for _ in network.buffers()):  # running statistics
            for mine, theirs in zip(self._copy.buffers(), network.buffers()):
                mine.copy_(theirs)
        return self._copy

    def __deepcopy__(self, memo: dict[int, Any]) -> ParameterNoise:
        return ParameterNoise(self.epsilon, self.sigma)
