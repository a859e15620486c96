"""Deep Q-learning (arXiv:1312.5602) and, by preset alone, its descendants.

    y = r + gamma * max_a Q_target(s', a)                     loss = huber(Q(s, a) - y)
    y = r + gamma * Q_target(s', argmax_a Q(s', a))           with `double` (arXiv:1509.06461)

Distributions of returns (C51, QR-DQN, IQN, FQF), dueling and noisy networks and ensembles are
heads; prioritised and n-step replay are settings of the memory; Rainbow (arXiv:1710.02298) is a
preset of these. What else changes the target is a setting of its own, see q_targets.py.
"""

from __future__ import annotations

from typing import Any

import torch
from coach.agents.q_targets import Advantage, Bootstrap, MonteCarlo, Munchausen
from coach.architectures.network import Network
from coach.architectures.target import Target
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Count, Share
from coach.core.spec import Spec
from coach.explorations.epsilon_greedy import EpsilonGreedy
from coach.functional.values import value_of


@register("agent", "dqn")
class DQN(Agent):
    """Off-policy value learning for discrete actions (arXiv:1312.5602).

    Args:
        network: needs a head called q that provides values; left out, an mlp or nature_cnn with
            the plain q head.
        exploration: reads values.
        double: the online network chooses the next action, the target network values it.
        target_every: updates between two steps of the target network.
        target_tau: share of the online weights that the target takes at each step; 1 copies.
        munchausen: add the policy's log-probability to the reward (arXiv:2007.14430).
        advantage: widen the gap between the best action and the others (arXiv:1512.04860).
        monte_carlo: mix what was received in the end into the target (arXiv:1703.01310).
        initial_priorities: note the values seen while acting, from which a prioritized memory
            finds the first priority of every transition (Ape-X, arXiv:1803.00933); not with
            `normalize_rewards`.
    """

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        double: bool = True,
        target_every: Count = 1_000,
        target_tau: Share = 1.0,
        munchausen: Munchausen | None = None,
        advantage: Advantage | None = None,
        monte_carlo: MonteCarlo | None = None,
        initial_priorities: bool = False,
    ) -> None:
        super().__init__(spec)
        spec.num_actions("agent dqn")
        self.online = (network or Network(spec, heads={"q": "q"})).require("dqn", q="values")
        self.target = Target(self.online, every=target_every, tau=target_tau)
        offered = self.online.provides("q")
        self.exploration = (exploration or EpsilonGreedy()).require("dqn", *offered, disturb=True)
        if munchausen is not None and "ensemble_values" in offered:
            raise SettingError(
                "munchausen",
                "an ensemble has no single policy whose log-probability could be added",
                "Remove it, or choose another head.",
            )
        if initial_priorities and self.online.reward_scale is not None:
            raise SettingError(
                "initial_priorities",
                "first priorities compare rewards as the environment gives them with the values "
                "of scaled ones (network.normalize_rewards)",
                "Remove one of both: without initial_priorities a new transition gets the largest "
                "priority.",
            )
        self.rules = [rule for rule in (munchausen, advantage, monte_carlo) if rule is not None]
        self.episode_returns = monte_carlo is not None
        self.initial_priorities = initial_priorities
        self.decoupled = double  # nn.Module has a method called double

    @property
    def policy(self) -> Network:
        return self.online

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.exploration.outputs(self.online, obs, state, ctx)
        action = self.exploration(outputs.q, ctx)
        if not self.initial_priorities:
            return Action(action, outputs.state)
        mean = outputs.q.mean
        extras = {"action_value": value_of(mean, action), "value": mean.amax(-1)}
        return Action(action, outputs.state, extras)

    @objective(minimises="online")
    def temporal_difference(self, batch: Batch) -> Loss:
        now = self.online(batch.obs).q
        with torch.no_grad():
            later = self.target(batch.next_obs).q
            chooser = self.online(batch.next_obs).q if self.decoupled else later
            aim = Bootstrap(batch, chooser.best(), later, self.target)
            for rule in self.rules:
                rule(aim)
        loss, surprise = now.td_loss(
            batch.action, aim.reward, aim.discount, later, aim.chosen, batch.index
        )
        return Loss(
            loss,
            priority=surprise,
            metrics=lambda: {
                "q/mean": value_of(now.mean, batch.action).mean(),
                "q/td_error": surprise.mean(),
            },
        )

    def after_update(self) -> None:
        self.target.track(self.online)
