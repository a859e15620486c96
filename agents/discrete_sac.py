"""Soft actor-critic for discrete actions (arXiv:1910.07207).

    critics:      y = r + gamma * pi(s')^T (min_i Q'_i(s') - alpha * log pi(s'))     (eq. 10)
    actor:        pi(s)^T (alpha * log pi(s) - min_i Q_i(s))                         (eq. 12)
    temperature:  alpha * (entropy of pi(s) - target entropy)                        (eq. 11)

With few actions, expectations over the policy are sums: nothing is sampled to learn from. The
temperature is adjusted through its logarithm, so it stays positive. Actions that are not allowed
have probability 0, and the entropy that is aimed at is a share of what the others admit.
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
from coach.core.schema import Count, Fraction, Positive, Share
from coach.core.spec import Spec
from coach.explorations.sample import Sample
from coach.functional.values import EnsembleValues, value_of
from torch import Tensor, nn


@register("agent", "discrete_sac")
class DiscreteSAC(Agent):
    """Off-policy maximum-entropy control of discrete actions (arXiv:1910.07207).

    Args:
        actor: needs a head called policy, categorical; left out, two layers of 256.
        critic: needs a head called q that provides ensemble_values; left out, twin networks of
            two layers of 256.
        exploration: reads a distribution.
        temperature: initial weight of the entropy, alpha.
        learn_temperature: adjust it so that the policy keeps the target entropy.
        target_entropy: as a share of the most that is possible, the logarithm of the number of
            actions allowed.
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
        target_entropy: Fraction = 0.98,
        target_tau: Share = 0.005,
        target_every: Count = 1,
    ) -> None:
        super().__init__(spec)
        self.actions = spec.num_actions("agent discrete_sac")
        images = len(spec.observation.shape or ()) == 3
        wide = None if images else {"type": "mlp", "hidden": [256, 256]}
        flat = None if images else {"type": "mlp", "hidden": []}
        twins = {"type": "ensemble_q", "members": 2, "hidden": [256, 256], "huber_delta": 0}
        self.actor = (actor or Network(spec, {"policy": "categorical"}, embedder=wide)).require(
            "discrete_sac", policy="distribution"
        )
        self.critic = (critic or Network(spec, {"q": twins}, embedder=flat)).require(
            "discrete_sac", q="ensemble_values"
        )
        self.target = Target(self.critic, every=target_every, tau=target_tau)
        self.exploration = (exploration or Sample()).require("discrete_sac", "distribution")
        self.temperature = nn.Parameter(
            torch.tensor([math.log(temperature)]), requires_grad=learn_temperature
        )
        self.target_entropy = target_entropy

    @property
    def policy(self) -> Network:
        return self.actor

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.actor(obs, state)
        return Action(self.exploration(outputs.policy, ctx), outputs.state)

    @objective(minimises="critic")
    def soft_bellman(self, batch: Batch) -> Loss:
        now = self.critic(batch.obs).q
        with torch.no_grad():
            log_probs = self.actor(batch.next_obs).policy.log_probs  # [B, A]
            later = self.target(batch.next_obs).q
            soft = later.every.amin(0) - self.temperature.exp() * log_probs  # [B, A]
            # Both critics aim at the same: the smaller value, as if each of them had said it.
            aim = EnsembleValues(soft, soft.expand_as(later.every))
            chosen = log_probs.exp().expand_as(later.every)  # [E, B, A]
        loss, surprise = now.td_loss(
            batch.action, batch.reward, batch.discount, aim, chosen, batch.index
        )
        return Loss(
            loss,
            priority=surprise,
            metrics=lambda: {
                "q/mean": value_of(now.mean, batch.action).mean(),
                "q/td_error": surprise.mean(),
            },
        )

    @objective(minimises=("actor", "temperature"))
    def improve_policy(self, batch: Batch) -> Loss:
        with torch.no_grad():
            now = self.critic(batch.obs).q
            q = now.every.amin(0)  # [B, A]
            if now.allowed is not None:  # what is never done must not turn the sum into nonsense
                q = torch.where(now.allowed, q, 0.0)
        policy = self.actor(batch.obs).policy
        alpha: Tensor = self.temperature.exp()
        actor = (policy.log_probs.exp() * (alpha.detach() * policy.log_probs - q)).sum(-1)  # [B]
        entropy = policy.entropy().detach()
        surplus = entropy - self.target_entropy * self._most_entropy(now.allowed)  # [B]
        return Loss(
            actor + self.temperature * surplus,
            metrics=lambda: {
                "loss/actor": actor.mean(),
                "policy/entropy": entropy.mean(),
                "policy/temperature": alpha.mean(),
            },
        )

    def after_update(self) -> None:
        self.target.track(self.critic)

    def _most_entropy(self, allowed: Tensor | None) -> Tensor | float:
        """``[B]`` entropy of choosing evenly among the actions that are ``allowed``, in nats."""
        return math.log(self.actions) if allowed is None else allowed.sum(-1).log()
