"""Actor-critic with a bootstrapped return: A2C, A3C and IMPALA are this class under three flags.

    policy:   -log pi(a|s) * A - e * entropy          value:   v * (target - V(s))^2 / 2

`A` and `target` come from V-trace (arXiv:1802.01561). Acting and learning with the same policy,
as in mode sync, it is the n-step return of A2C and A3C (arXiv:1602.01783); with actors that run
ahead, as in mode async, it corrects for their lag, which is IMPALA; with gradients exchanged
asynchronously it is A3C.
"""

from __future__ import annotations

from typing import Any

import torch
from coach.architectures.bootstrap import next_values
from coach.architectures.network import Network
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Fraction, NonNegative, Positive
from coach.core.spec import Spec
from coach.explorations.sample import Sample
from coach.functional.policy_losses import approximate_kl
from coach.functional.returns import explained_variance, vtrace
from coach.functional.targets import half_squared
from gymnasium import spaces


@register("agent", "actor_critic")
class ActorCritic(Agent):
    """Policy gradient with a value baseline, corrected for lag (arXiv:1802.01561).

    Serves Discrete, MultiDiscrete, MultiBinary and Box actions; learns from a rollout memory,
    mostly with one epoch.

    Args:
        network: needs a head called policy that provides a distribution and one called value;
            left out, a shared trunk: an mlp or nature_cnn.
        exploration: reads a distribution.
        value_coefficient: weight of the value loss.
        entropy_coefficient: weight of the entropy bonus.
        trace_lambda: decay of the return's trace; 1 is the n-step return.
        rho_clip: bound of the ratios that weigh temporal differences.
        c_clip: bound of the ratios that the trace is made of.
        normalize_advantages: to zero mean and unit deviation within each minibatch.
    """

    learns_from = ("rollout",)
    sequences = True
    unrolls = True

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        value_coefficient: NonNegative = 0.5,
        entropy_coefficient: NonNegative = 0.01,
        trace_lambda: Fraction = 1.0,
        rho_clip: Positive = 1.0,
        c_clip: Positive = 1.0,
        normalize_advantages: bool = False,
    ) -> None:
        super().__init__(spec)
        continuous = isinstance(spec.action, spaces.Box)
        heads = {"policy": "gaussian" if continuous else "categorical", "value": "value"}
        self.network = (network or Network(spec, heads)).require(
            "actor_critic", policy="distribution", value="value"
        )
        self.exploration = (exploration or Sample()).require("actor_critic", "distribution")
        self.value_coefficient = value_coefficient
        self.entropy_coefficient = entropy_coefficient
        self.trace_lambda, self.rho_clip, self.c_clip = trace_lambda, rho_clip, c_clip
        self.normalize_advantages = normalize_advantages

    @property
    def policy(self) -> Network:
        return self.network

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.network(obs, state)
        action = self.exploration(outputs.policy, ctx)
        extras = {"log_prob": outputs.policy.log_prob(action)}
        return Action(action, outputs.state, extras)

    @objective(minimises="network")
    def policy_gradient(self, batch: Batch) -> Loss:
        outputs = self.network(batch.obs, batch.state, batch.boundary)
        log_prob, value = outputs.policy.log_prob(batch.action), outputs.value  # [T * N]
        with torch.no_grad():
            log_ratio = log_prob - batch.extras["log_prob"]
            target, advantage = self._returns(batch, log_ratio, value, outputs.state)
            if self.normalize_advantages and len(advantage) > 1:
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = -log_prob * advantage
        value_loss = half_squared(value - target)
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
                "policy/ratio_clipped": (log_ratio.exp() > self.rho_clip).float().mean(),
                "value/mean": value.mean(),
                "value/explained_variance": explained_variance(value, target),
            },
        )

    def _returns(
        self, batch: Batch, log_ratio: torch.Tensor, value: torch.Tensor, states: State
    ) -> tuple[torch.Tensor, torch.Tensor]:
        whole = batch.unflatten()  # [T, N]
        value, log_ratio = (tensor.view_as(whole.reward) for tensor in (value, log_ratio))
        behind = next_values(self.network, whole, value, states)
        target, advantage = vtrace(
            log_ratio,
            whole.reward,
            whole.discount,
            whole.boundary,
            value,
            behind,
            self.trace_lambda,
            self.rho_clip,
            self.c_clip,
        )
        return target.flatten(), advantage.flatten()
