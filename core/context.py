"""What acting may know beside the observation: the step, the random stream, who acts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from coach.core.device import is_accelerator, upload
from coach.functional.scrambled import scrambled
from torch import Tensor


@dataclass
class Context:
    """Handed to `Agent.act` and to explorations.

    Args:
        step: environment steps taken by the whole run so far; schedules read it.
        rng: the actor's random stream; the only source of randomness while acting.
        env_ids: ``[N]`` global ids of the environments acted in.
        explore: True while training, False while evaluating.
        num_envs: environments of the whole run; 0 if that is as many as ``env_ids``.
        episodes: tells the number of every environment's present episode, ``N`` of them.
        notes: what explorations remember from step to step; saved with the actor.
    """

    step: int
    rng: torch.Generator
    env_ids: Tensor
    explore: bool = True
    num_envs: int = 0
    episodes: Callable[[], Sequence[int]] | None = None
    notes: dict[str, Tensor] = field(default_factory=dict)
    _moved: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)
    _of_episodes: tuple[Any, Tensor] | None = field(default=None, init=False, repr=False)

    def constant(self, tensor: Tensor) -> Tensor:
        """A tensor that nobody changes, on the device of acting; it is copied there once."""
        if not is_accelerator(self.rng.device):
            return tensor
        if id(tensor) not in self._moved:  # the original is kept, so that its id stays its own
            (moved,) = upload([tensor], self.rng.device)
            self._moved[id(tensor)] = tensor, moved
        return self._moved[id(tensor)][1]

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from [0, 1)."""
        return torch.rand(shape, generator=self.rng, device=self.rng.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.rng, device=self.rng.device)

    def categorical(self, logits: Tensor) -> Tensor:
        """Sample an index over the last dimension; the most probable one while evaluating."""
        return self.draw(logits) if self.explore else logits.argmax(-1)

    def of_episode(self, count: int) -> Tensor:
        """``[N]`` numbers below ``count`` that change with the episode of each environment.

        They follow from the stream's seed, the environment and the episode, so there is nothing to
        be remembered.
        """
        if not is_accelerator(self.rng.device):
            return self.of_episode_here(count)
        key = (count, *(() if self.episodes is None else self.episodes()))
        if self._of_episodes is None or self._of_episodes[0] != key:
            (numbers,) = upload([self.of_episode_here(count)], self.rng.device)
            self._of_episodes = key, numbers
        return self._of_episodes[1]

    def of_episode_here(self, count: int) -> Tensor:
        """What `of_episode` gives, on the CPU."""
        episodes = [0] * len(self.env_ids) if self.episodes is None else self.episodes()
        number = self.env_ids * 1_000_003 + torch.tensor(episodes)
        seed = self.rng.initial_seed() % 2**31
        return scrambled(scrambled(number) ^ seed) % count

    def mostly(
        self, best: Tensor, actions: int, epsilon: Tensor | float, allowed: Tensor | None = None
    ) -> Tensor:
        """The best of ``actions`` choices ``[N]``, or with probability ``epsilon`` any of them.

        Of any that are ``allowed`` ``[N, actions]``, if not all are.
        """
        draw = self.uniform(*best.shape)
        if draw.is_cpu and isinstance(epsilon, float) and min(draw.tolist()) >= epsilon:
            return best  # found out in a fifth of the time that tensors take
        explores = draw < epsilon
        if draw.is_cpu and not explores.any():
            return best
        if allowed is not None:
            return torch.where(explores, self.any_of(allowed), best)
        # Those below epsilon are uniform among themselves, so one draw decides whether and which.
        other = (draw * (actions / epsilon)).long().clamp_(max=actions - 1)
        return torch.where(explores, other, best)

    def any_of(self, allowed: Tensor) -> Tensor:
        """One of those that are ``allowed`` ``[N, A]``, each equally likely; also in evaluation."""
        logits = torch.zeros(allowed.shape, device=allowed.device)
        return self.draw(logits.masked_fill_(~allowed, -math.inf))

    def draw(self, logits: Tensor) -> Tensor:
        """Sample an index over the last dimension, also while evaluating.

        Uses the Gumbel-max trick: one pass, no normalisation.
        """
        noise = torch.empty_like(logits).exponential_(generator=self.rng).log_()
        return (logits - noise).argmax(-1)
