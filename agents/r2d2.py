"""Recurrent replay distributed DQN (R2D2, ICLR 2019) and, by preset alone, DRQN (arXiv:1507.06527).

Of a replayed sequence the first steps only warm up the network's state. Over the others

    v_t = h^-1(Q_target(s_(t+1), argmax_a Q(s_(t+1), a)))          values behind every step
    y_t = h(r_t + gamma r_(t+1) + ... + gamma^n v_(t+n-1))          loss = huber(Q(s_t, a_t) - y_t)
    h(x) = sign(x) * (sqrt(|x| + 1) - 1) + epsilon * x              (arXiv:1805.11593)

Both networks begin with the state that was stored while acting and are unrolled through the same
steps. Returns end where an episode or the sequence does. Without `rescaling`, without burn-in
(memory.burn_in: 0) and with `n_step` 1 this is DRQN. Environments that explore differently are
exploration epsilon_ladder, many actors are mode async.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from coach.architectures.network import Network
from coach.architectures.outputs import Outputs
from coach.architectures.target import Target
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State, map_tree
from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Count, NonNegative, Share
from coach.core.spec import Spec
from coach.explorations.epsilon_greedy import EpsilonGreedy
from coach.functional.n_step_targets import n_step_targets
from coach.functional.rescaling import rescaled, restored
from coach.functional.values import value_of
from torch import Tensor, nn


@register("agent", "r2d2")
class R2D2(Agent):
    """Value learning for discrete actions from replayed sequences (R2D2, ICLR 2019).

    A network with middleware gru or lstm remembers, and then needs memory sequence_replay; without
    one this is double DQN with returns along sequences.

    Args:
        network: needs a head called q that provides values; left out, an mlp or nature_cnn with
            the plain q head, which does not remember.
        exploration: reads values.
        double: the online network chooses the next action, the target network values it.
        n_step: rewards summed before bootstrapping, within the sequence.
        rescaling: epsilon of the function that returns are learned through; null learns them as
            they are.
        target_every: updates between two steps of the target network.
        target_tau: share of the online weights that the target takes at each step; 1 copies.
    """

    unrolls = True

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        double: bool = True,
        n_step: Count = 5,
        rescaling: NonNegative | None = 1e-3,
        target_every: Count = 1_000,
        target_tau: Share = 1.0,
    ) -> None:
        super().__init__(spec)
        spec.num_actions("agent r2d2")
        self.online = (network or Network(spec, heads={"q": "q"})).require("r2d2", q="values")
        self.target = Target(self.online, every=target_every, tau=target_tau)
        offered = self.online.provides("q")
        self.exploration = (exploration or EpsilonGreedy()).require("r2d2", *offered)
        self.n_step, self.rescaling = n_step, rescaling
        self.decoupled = double  # nn.Module has a method called double

    @property
    def policy(self) -> Network:
        return self.online

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.online(obs, state)
        return Action(self.exploration(outputs.q, ctx), outputs.state)

    def prepare(self, batch: Batch) -> Batch:
        """Cut off the burn-in, and let each network warm up its own state with it."""
        batch = super().prepare(batch)
        idle = batch.burn_in * (len(batch) // batch.length)  # rows
        warm, rest = batch[:idle], batch
        if idle:
            rest = replace(batch[idle:], length=batch.length - batch.burn_in, burn_in=0)
        if batch.state is None:
            return rest
        states = {
            "online": _warmed_up(self.online, warm, batch.state),
            "target": _warmed_up(self.target, warm, batch.state),
        }
        return replace(rest, state=states)

    @objective(minimises="online")
    def temporal_difference(self, batch: Batch) -> Loss:
        before = batch.state or {"online": None, "target": None}
        seen = self.online(batch.obs, before["online"], batch.boundary)
        with torch.no_grad():
            value = self._value_behind(batch, seen, before["target"])  # [B]
            reward, discount, boundary, behind = (
                rows.view(batch.length, -1)  # [L, M]
                for rows in (batch.reward, batch.discount, batch.boundary, value)
            )
            aim = n_step_targets(reward, discount, boundary, behind, self.n_step).flatten()
            if self.rescaling is not None:
                aim = rescaled(aim, self.rescaling)
        now, nothing = seen.q, torch.zeros_like(aim)  # what lies behind is within the target
        loss, surprise = now.td_loss(batch.action, aim, nothing, now, batch.action, batch.index)
        return Loss(
            loss,
            priority=surprise,
            metrics=lambda: {
                "q/mean": self._restored(value_of(now.mean, batch.action)).mean(),
                "q/td_error": surprise.mean(),
            },
        )

    def after_update(self) -> None:
        self.target.track(self.online)

    def _value_behind(self, batch: Batch, seen: Outputs, before: State) -> Tensor:
        """Value ``[B]`` of the true next observation of every step, one step on from its state."""
        then = self.target(batch.obs, before, batch.boundary)
        later = self.target(batch.next_obs, then.state).q
        chooser = self.online(batch.next_obs, seen.state).q if self.decoupled else later
        return self._restored(value_of(later.mean, chooser.policy_mean.argmax(-1)))

    def _restored(self, value: Tensor) -> Tensor:
        return value if self.rescaling is None else restored(value, self.rescaling)


def _warmed_up(network: nn.Module, warm: Batch, state: State) -> State:
    """The state behind the steps of ``warm``, from that before them."""
    if not len(warm):
        return state
    with torch.inference_mode():  # where forward passes of small networks are recorded
        after = network(warm.obs, state, warm.boundary).state

    def last(rows: Tensor, first: Tensor) -> Tensor:
        alive = ~warm.boundary[-len(first) :]  # [M] episodes that go on
        return rows[-len(first) :] * alive.to(rows.dtype).view(-1, *(1,) * (rows.dim() - 1))

    warmed_up: State = map_tree(last, after, state)
    return warmed_up
