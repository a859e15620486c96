"""Soft actor-critic with twin critics and automatic temperature (arXiv:1812.05905).

    critics:      y = r + gamma * (min_i Q'_i(s', a') - alpha * log pi(a'|s'))     (eq. 5, 6)
    actor:        alpha * log pi(a|s) - min_i Q_i(s, a)                            (eq. 7)
    temperature:  -alpha * (log pi(a|s) + target entropy)                          (eq. 18)

The temperature is adjusted through its logarithm, so it stays positive.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from coach.architectures.network import Network
from coach.architectures.target import Target
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Count, Positive, Share
from coach.core.spec import Spec
from coach.explorations.sample import Sample
from coach.functional.targets import half_squared, soft_value, td_target
from torch import Tensor, nn


@register("agent", "sac")
class SAC(Agent):
    """Off-policy maximum-entropy control of continuous actions (arXiv:1812.05905).

    Args:
        actor: needs a head called policy, squashed_gaussian; left out, two layers of 256.
        critic: needs a head called q that provides action_values; left out, twin networks of two
            layers of 256 over observation and action.
        exploration: reads a distribution.
        temperature: initial weight of the entropy, alpha.
        learn_temperature: adjust it so that the policy keeps the target entropy.
        target_entropy: in nats, of actions in [-1, 1] whatever the environment's bounds; left
            out, minus the number of action dimensions.
        target_tau: share of the critics' weights that their targets take at each step.
        target_every: updates between two steps of the targets.
    """

    def __init__(
        self,
        spec: Spec,
        actor: Network | None = None,
        critic: Network | None = None,
        exploration: Exploration | None = None,
        temperature: Positive = 1.0,
        learn_temperature: bool = True,
        target_entropy: float | None = None,
        target_tau: Share = 0.005,
        target_every: Count = 1,
    ) -> None:
        super().__init__(spec)
        dimensions = spec.bounded_actions("agent sac")
        wide = {"type": "mlp", "hidden": [256, 256]}
        flat = {"type": "mlp", "hidden": []}
        images = len(spec.observation.shape or ()) == 3
        self.actor = (
            actor
            or Network(spec, {"policy": "squashed_gaussian"}, embedder=None if images else wide)
        ).require("sac", policy="distribution")
        self.critic = (
            critic or Network(spec, {"q": "continuous_q"}, embedder=None if images else flat)
        ).require("sac", q="action_values")
        self.target = Target(self.critic, every=target_every, tau=target_tau)
        self.exploration = (exploration or Sample()).require("sac", "distribution")
        self.temperature = nn.Parameter(
            torch.tensor([math.log(temperature)]), requires_grad=learn_temperature
        )
        self.target_entropy = -float(dimensions) if target_entropy is None else target_entropy

    @property
    def policy(self) -> Network:
        return self.actor

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.actor(obs, state)
        return Action(self.exploration(outputs.policy, ctx), outputs.state)

    @objective(minimises="critic")
    def soft_bellman(self, batch: Batch) -> Loss:
        with torch.no_grad():
            policy = self.actor(batch.next_obs).policy
            next_action, log_prob = policy.sample_with_log_prob(self.rng)
            next_q = self.target(batch.next_obs).q(next_action).amin(0)  # [B]
            value = soft_value(next_q, log_prob, self.temperature.exp())
            target = td_target(batch.reward, batch.discount, value)  # [B]
        every = self.critic(batch.obs).q(batch.action)  # [E, B]
        error = every - target
        return Loss(
            half_squared(error).sum(0),
            priority=error.detach().abs().mean(0),
            metrics=lambda: {"q/mean": every.mean(), "q/td_error": error.abs().mean()},
        )

    @objective(minimises=("actor", "temperature"))
    def improve_policy(self, batch: Batch) -> Loss:
        action, log_prob = self.actor(batch.obs).policy.sample_with_log_prob(self.rng)
        q = self.critic(batch.obs).q(action).amin(0)  # [B]
        alpha: Tensor = self.temperature.exp()
        actor = alpha.detach() * log_prob - q
        surplus = (log_prob + self.target_entropy).detach()
        loss = actor - self.temperature * surplus
        return Loss(
            loss,
            metrics=lambda: {
                "loss/actor": actor.mean(),
                "policy/entropy": -log_prob.mean(),
                "policy/temperature": alpha.mean(),
            },
        )

    def after_update(self) -> None:
        self.target.track(self.critic)
