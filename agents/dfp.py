"""Direct future prediction (arXiv:1611.01779): acting well by foretelling measurements.

    f = (m_(t+tau) - m_t) / scale, for each offset tau              what a network F predicts
    a = argmax_a  g . F(s, m, g, a)                                 (eq. 3 to 5)
    loss = |F(s, m, g, a) - f|^2                                    (eq. 6)

There is no reward and no bootstrapping: what is learned is what was measured later on, and a goal
``g`` says what that is worth. Goals may change from episode to episode, also after training.

Behind the end of an episode nothing is measured. A terminal state changes nothing any more, so what
was measured in it may stand for all that would come (`past_end`): for instance, an episode that is
lost early has earned little for good. A time limit ends what is seen of an episode, not what would
have happened, so behind it nothing is learned; nor behind the newest step, which is yet to go on.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from coach.architectures.network import Network
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.batch import Batch, State
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.exploration import Exploration
from coach.core.measurements import GOAL, MEASUREMENTS, entry_size
from coach.core.registry import register
from coach.core.schema import Count, Positive
from coach.core.spec import Spec
from coach.explorations.epsilon_greedy import EpsilonGreedy
from coach.functional.values import value_of
from torch import Tensor


@register("agent", "dfp")
class DFP(Agent):
    """Predicts what becomes of measurements, and does what a goal likes best (arXiv:1611.01779).

    Measurements are the entry ``measurements`` of a Dict observation; an entry ``goal`` says what
    they are worth, one weight for each measurement, or one for each offset and measurement (offsets
    first), which then counts as it is. Both are inputs of the network, as all entries are.

    Args:
        network: needs a head called futures that provides futures; left out, an mlp or nature_cnn
            per entry of the observation.
        exploration: reads values.
        offsets: how many steps ahead the measurements are predicted, in ascending order.
        offset_weights: what a change counts for by the offset at which it shows.
        goal: weights like those of an entry ``goal``, for observations without one; left out, 1 for
            every measurement.
        scales: what is a large change of each measurement; predictions, and so goals, are in these
            units. Left out, 1.
        past_end: what is learned for offsets behind a terminal state: "repeat" that measurements
            stay what they were in it, "mask" nothing. Behind a time limit it is nothing.
    """

    future_key: ClassVar[str] = MEASUREMENTS
    reads_rewards = False

    def __init__(
        self,
        spec: Spec,
        network: Network | None = None,
        exploration: Exploration | None = None,
        offsets: list[Count] = [1, 2, 4, 8, 16, 32],  # noqa: B006 (schema defaults, never changed)
        offset_weights: list[float] = [0, 0, 0, 0.5, 0.5, 1],  # noqa: B006
        goal: list[float] | None = None,
        scales: list[Positive] | None = None,
        past_end: Literal["repeat", "mask"] = "repeat",
    ) -> None:
        super().__init__(spec)
        spec.num_actions("agent dfp")
        measured = _measurements(spec)
        _check_offsets(offsets, offset_weights)
        self.future_offsets = tuple(offsets)
        self.repeats = past_end == "repeat"
        shape = len(offsets), measured
        self.online = _checked(network or _default_network(spec, len(offsets)), len(offsets))
        self.exploration = (exploration or EpsilonGreedy()).require("dfp", "values")
        self.offset_weights: Tensor  # constants, which follow from the settings
        self.fixed_goal: Tensor
        self.scales: Tensor
        self._constant("offset_weights", torch.tensor(offset_weights).float()[:, None])  # [O, 1]
        self._constant("scales", _numbers("scales", scales, measured))
        self.goal_entry = entry_size(spec, GOAL)
        if self.goal_entry:
            _check_goal_entry(self.goal_entry, goal, shape)
        else:
            long = goal is not None and len(goal) == shape[0] * shape[1]
            weights = _numbers("goal", goal, shape[0] * shape[1] if long else measured)
            self._constant("fixed_goal", self._spread(weights))

    @property
    def policy(self) -> Network:
        return self.online

    def act(self, obs: Any, state: State, ctx: Context) -> Action:
        outputs = self.online(obs, state)
        values = outputs.futures.towards(self.goal(obs))
        return Action(self.exploration(values, ctx), outputs.state)

    def goal(self, obs: Any) -> Tensor:
        """What changes are worth, ``[O, M]``, or ``[N, O, M]`` if observations bring goals."""
        return self._spread(obs[GOAL]) if self.goal_entry else self.fixed_goal

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The changes ``[B, O, M]`` to be predicted, and ``[B, O, 1]`` 1 where they count, else 0.

        Reads the extras that the memory adds for ``future_offsets``.
        """
        extras, now = batch.extras, batch.obs[MEASUREMENTS]
        change = (extras["future"] - now.unsqueeze(1)) / self.scales  # [B, O, M]
        counts = extras["future_known"]  # [B, O]
        if self.repeats:
            counts = counts | extras["future_over"]
        return change, counts.to(change.dtype).unsqueeze(-1)

    @objective(minimises="online")
    def predict_futures(self, batch: Batch) -> Loss:
        futures = self.online(batch.obs).futures
        with torch.no_grad():
            change, counts = self.targets(batch)
        taken = value_of(futures.mean.flatten(-2), batch.action).view_as(change)  # [B, O, M]
        error = (taken - change) * counts
        distance = error.detach().abs()
        return Loss(
            error.square().mean((-2, -1)),
            priority=distance.mean((-2, -1)),
            metrics=lambda: {
                "futures/error": distance.mean((0, 2)).sum() / counts.mean(0).sum().clamp(min=1e-6),
                "futures/counted": counts.mean(),
            },
        )

    def _spread(self, weights: Tensor) -> Tensor:
        """Weights ``[..., M]`` or ``[..., O * M]`` as a whole goal ``[..., O, M]``."""
        offsets, measured = len(self.future_offsets), len(self.scales)
        if weights.shape[-1] == measured:
            return weights.unsqueeze(-2) * self.offset_weights
        return weights.reshape(*weights.shape[:-1], offsets, measured)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)


def _default_network(spec: Spec, offsets: int) -> Network:
    return Network(spec, heads={"futures": {"type": "futures", "offsets": offsets}})


def _measurements(spec: Spec) -> int:
    measured = entry_size(spec, MEASUREMENTS)
    if not measured:
        raise SettingError(
            "agent",
            f"agent dfp serves Dict observations with an entry '{MEASUREMENTS}', but the "
            f"environment has {spec.observation}",
            "Put the wrapper coach.environments.measured:AddMeasurements into "
            "environment.wrappers: it adds the reward so far, entries of the observation or of "
            "info.",
        )
    return measured


def _check_offsets(offsets: list[int], weights: list[float]) -> None:
    if not offsets or any(a >= b for a, b in pairwise(offsets)):
        raise SettingError("offsets", f"{offsets} are not in ascending order, each once")
    if len(weights) != len(offsets):
        raise SettingError(
            "offset_weights",
            f"{len(weights)} weights do not fit {len(offsets)} offsets",
            "Give one weight for each of agent.offsets.",
        )


def _checked(network: Network, offsets: int) -> Network:
    network.require("dfp", futures="futures")
    if network.reward_scale is not None:
        raise SettingError(
            "network.normalize_rewards",
            "agent dfp learns from measurements and never reads a reward",
            "Remove it; `scales` says what is a large change of each measurement.",
        )
    predicted = getattr(network.heads["futures"], "offsets", offsets)
    if predicted != offsets:
        raise SettingError(
            "network.heads.futures.offsets",
            f"the head predicts {predicted} later steps, but the agent has {offsets} offsets",
            f"Set it to {offsets}, or change agent.offsets.",
        )
    return network


def _numbers(setting: str, given: list[float] | None, count: int) -> Tensor:
    numbers = [1.0] * count if given is None else given
    if len(numbers) != count:
        raise SettingError(
            setting,
            f"{len(numbers)} numbers do not fit the environment's {count} measurements",
            "Give one for each measurement"
            + (", or one for each offset and measurement." if setting == "goal" else "."),
        )
    return torch.tensor(numbers, dtype=torch.float32)


def _check_goal_entry(size: int, goal: list[float] | None, shape: tuple[int, int]) -> None:
    if goal is not None:
        raise SettingError(
            "goal",
            "observations bring goals of their own, so this one would never be read",
            f"Remove agent.goal, or the entry '{GOAL}' of the observation.",
        )
    offsets, measured = shape
    if size not in (measured, offsets * measured):
        raise SettingError(
            "environment",
            f"the observation's '{GOAL}' has {size} numbers, which fits neither {measured} "
            f"measurements nor {offsets} offsets of each",
            f"It needs {measured} or {offsets * measured} numbers; rename it if it is something "
            "else.",
        )
