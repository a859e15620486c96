"""Neural episodic control: values are looked up among the returns of similar states.

    Q(s, a) = sum_i w_i v_i, over the neighbours of h(s) among the keys of a (arXiv:1703.01988, 1)
    R_t = r_t + gamma r_(t+1) + ... + gamma^n max_a Q(s_(t+n), a)                               (3)
    loss = huber(Q(s_t, a_t) - R_t)             written for a_t: h(s_t) -> R_t, see heads/dnd_q.py

The network learns slowly what makes states similar; what a state is worth is known as soon as it is
written down. There is no target network: what is written changes by later returns alone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from coach.architectures.bootstrap import next_values
from coach.architectures.heads.dnd_q import DNDQ, EpisodicValues
from coach.architectures.network import Network
from coach.architectures.outputs import Outputs
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.core.schema import Fraction
from coach.core.spec import Spec
from coach.explorations.epsilon_greedy import EpsilonGreedy
from coach.functional.returns import gae
from coach.functional.values import value_of
from torch import Tensor


@register("agent", "nec")
class NEC(Agent):
    """Value learning from a memory of keys and returns, for discrete actions (arXiv:1703.01988).

    Every fragment is written into the dictionaries once, behind its updates. Its returns reach to
    its end or to a boundary, whichever comes first, so `run.fragment_length` is the n of what is
    written; the memory's own `n_step` is that of what the network learns from. The two may differ.

    In mode async actors read the newest dictionaries that were published. Where gradients are
    exchanged, every worker fills dictionaries of its own, and a checkpoint has those of the first.

    Args:
        network: needs a head called q with dictionaries, such as dnd_q; left out, an mlp or
            nature_cnn with that head.
        exploration: reads values.
        discount: gamma of the returns that are written; the memory's discount suits.
    """

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        discount: Fraction = 0.99,
    ) -> None:
        super().__init__(spec)
        spec.num_actions("agent nec")
        network = network or Network(spec, heads={"q": "dnd_q"})
        self.online = network.require("nec", q="dictionary")
        if self.online.reward_scale is not None:
            raise SettingError(
                "network.normalize_rewards",
                "dictionaries keep returns for long, so they would hold returns of many scales",
                "Remove it.",
            )
        self.exploration = (exploration or EpsilonGreedy()).require("nec", *network.provides("q"))
        self.discount = discount

    @property
    def policy(self) -> Network:
        return self.online

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.online(obs, state)
        return Action(self.exploration(outputs.q, ctx), outputs.state)

    @objective(minimises="online")
    def temporal_difference(self, batch: Batch) -> Loss:
        now = self.online(batch.obs).q
        with torch.no_grad():
            later = self.online(batch.next_obs).q
        loss, surprise = now.td_loss(
            batch.action, batch.reward, batch.discount, later, later.best()
        )
        return Loss(
            loss,
            priority=surprise,
            beside=self._beside(batch, now, later) if self._head.dictionary.entry_lr else {},
            metrics=lambda: {
                "q/mean": value_of(now.mean, batch.action).mean(),
                "q/td_error": surprise.mean(),
                "q/keys": self._head.dictionary.count.float().mean(),  # per action
            },
        )

    def update_beside(self, **found: Tensor) -> None:
        """Let the entries that were read learn from the error, too."""
        self._head.dictionary.descend(**found)

    def observe(self, fragment: Batch) -> None:
        """Refresh running statistics, then write what the fragment ``[T, N]`` has led to.

        Keys are those of the network as it is now. The neighbours of what was passed, under every
        action, count as used; learning from the replay counts for nothing.
        """
        super().observe(fragment)
        device = self._head.dictionary.keys.device
        with torch.no_grad():
            # Copies, since results may differ in their last bits with where memory begins.
            own = fragment.to(device).clone()
            self._remember(self.prepare(own))

    @torch.no_grad()
    def _beside(
        self, batch: Batch, now: EpisodicValues, later: EpisodicValues
    ) -> dict[str, Tensor]:
        """What was read, and the derivative of each row's loss by it."""
        wanted = batch.reward + batch.discount * value_of(later.mean, later.best())
        error, most = value_of(now.mean, batch.action) - wanted, self._head.huber_delta
        error = error.clamp(-most, most) if most else error
        if batch.weight is not None:
            error = error * batch.weight
        slot = now.slot[batch.action, torch.arange(len(error), device=error.device)]
        return {"key": now.key.detach(), "action": batch.action, "slot": slot, "error": error}

    def _remember(self, batch: Batch) -> None:
        flat = batch.flatten()
        outputs = self.online(flat.obs, flat.state, flat.boundary)
        values: EpisodicValues = outputs.q
        returns = self._returns(batch, values.mean.amax(-1).view_as(batch.reward), outputs.state)
        dictionary = self._head.dictionary
        dictionary.touch(values.slot)
        dictionary.write(values.key, flat.action, returns.flatten())

    def _returns(self, batch: Batch, value: Tensor, states: State) -> Tensor:
        """``[T, N]`` returns up to the fragment's end or a boundary, given values ``[T, N]``."""
        behind = next_values(self._greedy, batch, value, states)
        discount = self.discount * batch.discount
        return gae(batch.reward, discount, batch.boundary, value, behind, 1.0) + value

    def _greedy(self, obs: Any, state: State = None, boundary: Tensor | None = None) -> Outputs:
        """Value of the best action."""
        outputs = self.online(obs, state, boundary)
        return Outputs({"value": outputs.q.mean.amax(-1)}, outputs.state)

    @property
    def _head(self) -> DNDQ:
        return cast(DNDQ, self.online.heads["q"])
