"""Neural episodic control: values are looked up among the returns of similar states.

    Q(s, a) = sum_i w_i v_i, over the neighbours of h(s) among the keys of a (arXiv:1703.01988, 1)
    R_t = r_t + gamma r_(t+1) + ... + gamma^n max_a Q(s_(t+n), a)                               (3)
    loss = huber(Q(s_t, a_t) - R_t)             written for a_t: h(s_t) -> R_t, see heads/dnd_q.py

The network learns slowly what makes states similar; what a state is worth is known as soon as it is
written down. There is no target network: what is written changes by later returns alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast

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
from coach.functional.targets import td_target
from coach.functional.values import value_of
from torch import Tensor

_TARGET = "target"  # the return that was found when a step came in


@register("agent", "nec")
class NEC(Agent):
    """Value learning from a memory of keys and returns, for discrete actions (arXiv:1703.01988).

    Every fragment is written into the dictionaries once, behind its updates. Its returns reach to
    its end or to a boundary, whichever comes first, so `run.fragment_length` is the n of what is
    written. What the network learns from is either the same returns, as published: `targets`
    stored, found once, when a fragment comes in, and kept in the replay. Or it is bootstrapped anew
    whenever a step is replayed, from the dictionaries as they are then: `targets` fresh, where the
    memory's own `n_step` counts.

    In mode async actors read the newest dictionaries that were published. Where gradients are
    exchanged, every worker fills dictionaries of its own, and a checkpoint has those of the first.

    Args:
        network: needs a head called q with dictionaries, such as dnd_q; left out, an mlp or
            nature_cnn with that head.
        exploration: reads values.
        discount: gamma of the returns that are written; the memory's discount suits.
        targets: of the network: ``stored`` with every step (arXiv:1703.01988, algorithm 1), or
            ``fresh`` at every replay.
    """

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        discount: Fraction = 0.99,
        targets: Literal["fresh", "stored"] = "fresh",
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
        self.discount, self.stored = discount, targets == "stored"
        if self.stored:
            self.kept_extras, self.reads_rewards = (_TARGET,), False

    @property
    def policy(self) -> Network:
        return self.online

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.online(obs, state)
        return Action(self.exploration(outputs.q, ctx), outputs.state)

    @objective(minimises="online")
    def temporal_difference(self, batch: Batch) -> Loss:
        now = self.online(batch.obs).q
        if self.stored:
            wanted = batch.extras[_TARGET]
        else:
            with torch.no_grad():
                later = self.online(batch.next_obs).q
                best = value_of(later.mean, later.best())
                wanted = td_target(batch.reward, batch.discount, best)
        nothing = torch.zeros_like(wanted)  # what lies behind is within the target
        loss, surprise = now.td_loss(batch.action, wanted, nothing, now, batch.action)
        return Loss(
            loss,
            priority=surprise,
            beside=self._beside(batch, now, wanted) if self._head.dictionary.entry_lr else {},
            metrics=lambda: {
                "q/mean": value_of(now.mean, batch.action).mean(),
                "q/td_error": surprise.mean(),
                "q/keys": self._head.dictionary.count.float().mean(),  # per action
            },
        )

    def update_beside(self, **found: Tensor) -> None:
        """Let the entries that were read learn from the error, too."""
        self._head.dictionary.descend(**found)

    @torch.no_grad()
    def receive(self, fragment: Batch) -> Batch:
        """Find what the steps of a fragment ``[T, N]`` led to, if that is stored with them."""
        fragment = super().receive(fragment)
        if not self.stored:
            return fragment
        own = self._own(fragment)
        target = self._returns(own, *self._values(own)[1:])
        return replace(fragment, extras=fragment.extras | {_TARGET: target.cpu()})

    def observe(self, fragment: Batch) -> None:
        """Refresh running statistics, then write what the fragment ``[T, N]`` has led to.

        Keys are those of the network as it is now. The neighbours of what was passed, under every
        action, count as used; learning from the replay counts for nothing.
        """
        super().observe(fragment)
        self._remember(self._own(fragment))

    def _own(self, fragment: Batch) -> Batch:
        """A copy where the dictionaries are: last bits may differ with where in memory it lies."""
        return fragment.to(self._head.dictionary.keys.device).clone()

    @torch.no_grad()
    def _beside(self, batch: Batch, now: EpisodicValues, wanted: Tensor) -> dict[str, Tensor]:
        """What was read, and the derivative of each row's loss by it."""
        error, most = value_of(now.mean, batch.action) - wanted, self._head.huber_delta
        error = error.clamp(-most, most) if most else error
        if batch.weight is not None:
            error = error * batch.weight
        slot = now.slot[batch.action, torch.arange(len(error), device=error.device)]
        return {"key": now.key.detach(), "action": batch.action, "slot": slot, "error": error}

    @torch.no_grad()
    def _remember(self, batch: Batch) -> None:
        values, best, states = self._values(batch)
        stored = batch.extras.get(_TARGET) if self.stored else None
        returns = self._returns(batch, best, states) if stored is None else stored
        dictionary = self._head.dictionary
        dictionary.touch(values.slot)
        dictionary.write(values.key, batch.action.flatten(), returns.flatten())

    def _values(self, batch: Batch) -> tuple[EpisodicValues, Tensor, State]:
        """Values of a fragment's observations, the best ``[T, N]``, and the states after them."""
        flat = batch.flatten()
        outputs = self.online(flat.obs, flat.state, flat.boundary)
        values: EpisodicValues = outputs.q
        return values, values.mean.amax(-1).view_as(batch.reward), outputs.state

    @torch.no_grad()
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
