"""Q-learning of continuous actions with normalized advantages (arXiv:1603.00748).

    Q(s, a) = V(s) - 1/2 (a - m(s))^T P(s) (a - m(s)),   P = L L^T          (section 4)
    y = r + gamma * V'(s'),   loss = (Q(s, a) - y)^2 / 2                    (algorithm 1)

`P` is positive definite, so `m` is the best action and `V` its value: the maximum that Q-learning
needs is one output of the network, without an actor and without a search.
"""

from __future__ import annotations

from typing import Any

import torch
from coach.architectures.network import Network
from coach.architectures.target import Target
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Count, Share
from coach.core.spec import Spec
from coach.explorations.gaussian import Gaussian
from coach.functional.targets import half_squared, td_target


@register("agent", "naf")
class NAF(Agent):
    """Off-policy value learning for continuous actions (arXiv:1603.00748, algorithm 1).

    Args:
        network: needs a head called q, naf; left out, two layers of 256 before it.
        exploration: reads an action; left out, gaussian.
        target_tau: share of the online weights that the target takes at each step; 1 copies.
        target_every: updates between two steps of the target network.
    """

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        target_tau: Share = 0.005,
        target_every: Count = 1,
    ) -> None:
        super().__init__(spec)
        spec.bounded_actions("agent naf")
        wide = {"type": "mlp", "hidden": [256, 256]}
        images = len(spec.observation.shape or ()) == 3
        self.online = (
            network or Network(spec, {"q": "naf"}, embedder=None if images else wide)
        ).require("naf", q="quadratic_values")
        self.target = Target(self.online, every=target_every, tau=target_tau)
        self.exploration = (exploration or Gaussian(spec)).require("naf", "action")

    @property
    def policy(self) -> Network:
        return self.online

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.online(obs, state)
        return Action(self.exploration(outputs.q.mean, ctx), outputs.state)

    @objective(minimises="online")
    def temporal_difference(self, batch: Batch) -> Loss:
        with torch.no_grad():
            later = self.target(batch.next_obs).q.value
            target = td_target(batch.reward, batch.discount, later)  # [B]
        now = self.online(batch.obs).q
        q = now.of(batch.action)
        error = q - target  # [B]
        surprise = error.detach().abs()
        return Loss(
            half_squared(error),
            priority=surprise,
            metrics=lambda: {
                "q/mean": q.mean(),
                "q/td_error": surprise.mean(),
                "q/advantage": (q - now.value).mean(),
            },
        )

    def after_update(self) -> None:
        self.target.track(self.online)
