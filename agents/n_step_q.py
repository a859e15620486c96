"""Q-learning from rollouts: n-step returns, Peng's Q(lambda), with or without a target network.

    G_t = r_t + gamma * ((1 - lambda) * V(s_(t+1)) + lambda * G_(t+1))
    V(s) = max_a Q_target(s, a)                     loss = huber(Q(s_t, a_t) - G_t)
    V(s) = Q_target(s, argmax_a Q(s, a))            with `double` (arXiv:1509.06461)

Behind the last step of a rollout and behind a time limit ``G`` is ``V``, behind a terminal state 0.
With lambda = 1 these are the returns of asynchronous n-step Q-learning (arXiv:1602.01783,
algorithm S2), which is this agent in mode async, exchanging gradients. With lambda < 1 it is Peng's
Q(lambda) (doi:10.1007/BF00114731); without a target network that is PQN (arXiv:2407.04811), whose
networks normalise their layers instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from coach.architectures.bootstrap import next_values
from coach.architectures.network import Network
from coach.architectures.outputs import Outputs
from coach.architectures.target import Target
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Count, CountOrZero, Fraction, Share
from coach.core.spec import Spec
from coach.explorations.epsilon_greedy import EpsilonGreedy
from coach.functional.returns import explained_variance, gae
from coach.functional.values import value_of
from torch import Tensor


@register("agent", "n_step_q")
class NStepQ(Agent):
    """Value learning for discrete actions from fresh rollouts (arXiv:1602.01783, arXiv:2407.04811).

    The memory's horizon is the n of the returns. They are found once per rollout, before its
    epochs, and are not corrected for exploration.

    Args:
        network: needs a head called q that provides values; left out, an mlp or nature_cnn with
            the plain q head.
        exploration: reads values.
        double: the online network chooses the next action, the target network values it.
        target_every: updates between two steps of the target network, each worker's own where
            gradients are exchanged; null has none, the online network itself says what lies
            behind a rollout.
        target_tau: share of the online weights that the target takes at each step; 1 copies.
        trace_lambda: 1 is the n-step return, 0 the one-step return, in between a mixture of all.
        max_policy_lag: updates that acting may lag behind in mode async, exchanging experience;
            fragments of older policies are dropped. What an older policy did then counts as if
            the present one had done it, which a small lag makes little worse. 0 allows none,
            which rules that out.
    """

    learns_from = ("rollout",)
    unrolls = True

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        double: bool = False,
        target_every: Count | None = 200,
        target_tau: Share = 1.0,
        trace_lambda: Fraction = 1.0,
        max_policy_lag: CountOrZero = 0,
    ) -> None:
        super().__init__(spec)
        spec.num_actions("agent n_step_q")
        if target_every is None and (double or target_tau != 1.0):
            setting, value = ("double", "true") if double else ("target_tau", target_tau)
            raise SettingError(
                setting,
                f"{value} says something about a target network, but target_every is null",
                f"Leave out {setting}, or set target_every.",
            )
        self.max_policy_lag = max_policy_lag
        self.online = (network or Network(spec, heads={"q": "q"})).require("n_step_q", q="values")
        self.target = (
            None
            if target_every is None
            else Target(self.online, every=target_every, tau=target_tau)
        )
        offered = self.online.provides("q")
        self.exploration = (exploration or EpsilonGreedy()).require(
            "n_step_q", *offered, disturb=True
        )
        self.trace_lambda = trace_lambda
        self.decoupled = double  # nn.Module has a method called double

    @property
    def policy(self) -> Network:
        return self.online

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.exploration.outputs(self.online, obs, state, ctx)
        return Action(self.exploration(outputs.q, ctx), outputs.state)

    def prepare(self, batch: Batch) -> Batch:
        """Returns of a rollout ``[T, N]``: generalised advantages of ``V``, plus ``V``."""
        batch = super().prepare(batch)
        flat = batch.flatten()
        before = None if flat.state is None else {"chooser": flat.state, "judge": flat.state}
        now = self._greedy(flat.obs, before, flat.boundary)
        value: Tensor = now.value.view_as(batch.reward)  # [T, N]
        behind = next_values(self._greedy, batch, value, now.state)
        surplus = gae(
            batch.reward, batch.discount, batch.boundary, value, behind, self.trace_lambda
        )
        return replace(batch, extras=batch.extras | {"returns": surplus + value}, next_obs=None)

    @objective(minimises="online")
    def regress_on_returns(self, batch: Batch) -> Loss:
        now = self.online(batch.obs, batch.state, batch.boundary).q
        returns = batch.extras["returns"]  # [B]
        nothing = torch.zeros_like(returns)  # what lies behind is within the returns
        loss, surprise = now.td_loss(batch.action, returns, nothing, now, batch.action)
        return Loss(
            loss,
            metrics=lambda: {
                "q/mean": value_of(now.mean, batch.action).mean(),
                "q/td_error": surprise.mean(),
                "q/return": returns.mean(),
                "q/explained_variance": explained_variance(now.mean.amax(-1), returns),
            },
        )

    def after_update(self) -> None:
        if self.target is not None:
            self.target.track(self.online)

    def _greedy(self, obs: Any, state: State = None, boundary: Tensor | None = None) -> Outputs:
        """Value of the best action; chooser and judge carry recurrent states of their own."""
        before = state if isinstance(state, dict) else {}
        judge = self.online if self.target is None else self.target
        worth = judge(obs, before.get("judge"), boundary)
        choice = self.online(obs, before.get("chooser"), boundary) if self.decoupled else worth
        value = value_of(worth.q.mean, choice.q.policy_mean.argmax(-1))  # [B]
        if worth.state is None:
            return Outputs({"value": value}, None)
        return Outputs({"value": value}, {"chooser": choice.state, "judge": worth.state})
