"""Proximal policy optimisation with the clipped surrogate (arXiv:1707.06347).

    L = -min(ratio * A, clip(ratio, 1 - c, 1 + c) * A) + v * (V - R)^2 / 2 - e * entropy   (eq. 9)

`A` are generalised advantages (arXiv:1506.02438), normalised within each minibatch, `R = A + V`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from coach.architectures.bootstrap import next_values
from coach.architectures.network import Network
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import CountOrZero, Fraction, NonNegative, Positive
from coach.core.spec import Spec
from coach.explorations.sample import Sample
from coach.functional.policy_losses import approximate_kl, clipped_surrogate
from coach.functional.returns import explained_variance, gae
from coach.functional.targets import half_squared
from gymnasium import spaces
from torch import Tensor


@register("agent", "ppo")
class PPO(Agent):
    """On-policy actor-critic with a clipped surrogate (arXiv:1707.06347).

    Serves Discrete, MultiDiscrete, MultiBinary and Box actions; learns from a rollout memory.

    Args:
        network: needs a head called policy that provides a distribution and one called value;
            left out, separate trunks of two layers of 64 tanh units.
        exploration: reads a distribution.
        clip: how far the probability ratio may pay off away from 1.
        gae_lambda: mixture of n-step advantage estimates.
        value_coefficient: weight of the value loss.
        entropy_coefficient: weight of the entropy bonus.
        normalize_advantages: to zero mean and unit deviation within each minibatch.
        value_clip: largest move of a value estimate that pays off; null does not clip.
        max_policy_lag: updates that acting may lag behind in mode async; fragments of older
            policies are dropped. The ratio is to the policy that acted, so a small lag does little
            harm. 0 allows none, which rules that mode out.
    """

    learns_from = ("rollout",)
    unrolls = True

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        clip: Positive = 0.2,
        gae_lambda: Fraction = 0.95,
        value_coefficient: NonNegative = 0.5,
        entropy_coefficient: NonNegative = 0.0,
        normalize_advantages: bool = True,
        value_clip: Positive | None = None,
        max_policy_lag: CountOrZero = 0,
    ) -> None:
        super().__init__(spec)
        self.max_policy_lag = max_policy_lag
        self.network = (network or _default_network(spec)).require(
            "ppo", policy="distribution", value="value"
        )
        self.exploration = (exploration or Sample()).require("ppo", "distribution")
        self.clip, self.gae_lambda, self.value_clip = clip, gae_lambda, value_clip
        self.value_coefficient = value_coefficient
        self.entropy_coefficient = entropy_coefficient
        self.normalize_advantages = normalize_advantages

    @property
    def policy(self) -> Network:
        return self.network

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.network(obs, state)
        action = self.exploration(outputs.policy, ctx)
        extras = {"log_prob": outputs.policy.log_prob(action), "value": outputs.value}
        return Action(action, outputs.state, extras)

    def prepare(self, batch: Batch) -> Batch:
        """Advantages and returns of a rollout ``[T, N]``, from the values noted while acting."""
        batch = super().prepare(batch)
        value = batch.extras["value"]  # [T, N]
        behind = next_values(self.network, batch, value)
        advantage = gae(
            batch.reward, batch.discount, batch.boundary, value, behind, self.gae_lambda
        )
        extras = batch.extras | {"advantage": advantage, "returns": advantage + value}
        return replace(batch, extras=extras, next_obs=None)

    @objective(minimises="network")
    def clipped_surrogate(self, batch: Batch) -> Loss:
        outputs, extras = self.network(batch.obs, batch.state, batch.boundary), batch.extras
        advantage = extras["advantage"]  # [B]
        if self.normalize_advantages and len(batch) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        log_ratio = outputs.policy.log_prob(batch.action) - extras["log_prob"]
        ratio = log_ratio.exp()
        policy_loss = clipped_surrogate(ratio, advantage, self.clip)
        value_loss = self._value_loss(outputs.value, extras["value"], extras["returns"])
        loss = policy_loss + self.value_coefficient * value_loss
        if self.entropy_coefficient:
            loss = loss - self.entropy_coefficient * outputs.policy.entropy()
        return Loss(
            loss,
            metrics=lambda: {
                "loss/policy": policy_loss.mean(),
                "loss/value": value_loss.mean(),
                "policy/entropy": outputs.policy.entropy().mean(),
                "policy/kl": approximate_kl(log_ratio),
                "policy/clip_fraction": ((ratio - 1).abs() > self.clip).float().mean(),
                "value/mean": outputs.value.mean(),
                "value/explained_variance": explained_variance(extras["value"], extras["returns"]),
            },
        )

    def _value_loss(self, value: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        loss = half_squared(value - returns)
        if self.value_clip is not None:
            held = old + (value - old).clamp(-self.value_clip, self.value_clip)
            loss = torch.maximum(loss, half_squared(held - returns))
        return loss


def _default_network(spec: Spec) -> Network:
    continuous = isinstance(spec.action, spaces.Box)
    return Network(
        spec,
        heads={"policy": "gaussian" if continuous else "categorical", "value": "value"},
        embedder={"type": "mlp", "hidden": [64, 64], "activation": "tanh", "init": "orthogonal"}
        if isinstance(spec.observation, spaces.Box) and len(spec.observation.shape) == 1
        else None,
        share_trunk=False,
    )
