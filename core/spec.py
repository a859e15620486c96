"""What an environment offers an agent: its observation and its action space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from coach.core.errors import SettingError
from gymnasium import spaces
from numpy.typing import NDArray

#: A Gymnasium space of whatever values.
AnySpace: TypeAlias = spaces.Space[Any]

#: Magnitude from which a bound of floats stands for "no bound", such as the largest float32.
_HUGE = 1e30
#: Gymnasium writes infinite bounds of integers as the type's limits, moved by so much.
_MARGIN = 2


@dataclass(frozen=True)
class Spec:
    """Spaces of one (not vectorised) environment.

    Agents act in their own unit: every bounded dimension of a Box action is [-1, 1] for them,
    whatever the bounds, see `coach.environments.actions`.

    Args:
        observation: Box, Discrete, MultiDiscrete, MultiBinary, or a (nested) Dict of these.
        action: Box, Discrete, MultiDiscrete or MultiBinary.
    """

    observation: AnySpace
    action: AnySpace

    def require_action(self, owner: str, *kinds: type[AnySpace]) -> None:
        """Stop unless the action space is one of ``kinds``.

        Raises:
            SettingError: names what ``owner`` serves and what the environment has.
        """
        if not isinstance(self.action, kinds):
            served = " or ".join(kind.__name__ for kind in kinds)
            raise SettingError(
                "agent",
                f"{owner} serves {served} actions, but the environment has {self.action}",
                _agents_for(self.action),
            )

    def num_actions(self, owner: str) -> int:
        """Number of discrete actions; stops unless the action space is Discrete."""
        self.require_action(owner, spaces.Discrete)
        assert isinstance(self.action, spaces.Discrete)
        return int(self.action.n)

    def bounded_actions(self, owner: str) -> int:
        """Number of action dimensions; stops unless the action is a Box with bounds in each.

        Raises:
            SettingError: another space, or a dimension without bounds.
        """
        self.require_action(owner, spaces.Box)
        assert isinstance(self.action, spaces.Box)
        _, _, bounded = box_bounds(self.action)
        if not bounded.all():
            some_low, some_high = _some_bounds(self.action)
            raise SettingError(
                "environment",
                f"{owner} needs bounded actions, but the environment has {self.action}",
                "Set bounds that suit the task, such as `environment.wrappers: "
                '[{"coach.environments.bounded_actions:BoundActions": '
                f"{{low: {some_low}, high: {some_high}}}}}]`, or choose agent ppo.",
            )
        return len(bounded)


def _agents_for(action: AnySpace) -> str:
    """A sentence that names agents which serve an action space."""
    match action:
        case spaces.Discrete():
            agents = "dqn or ppo"
        case spaces.Box():
            agents = "sac or ppo" if box_bounds(action)[2].all() else "ppo"
        case spaces.MultiDiscrete() | spaces.MultiBinary():
            agents = "ppo"
        case _:
            return _OWN_ACTION_WRAPPER
    return f"Choose agent {agents}; `coach list agents` shows all of them."


_OWN_ACTION_WRAPPER = (
    "No agent serves such actions: name a gymnasium.ActionWrapper of your own that makes one "
    "of these in environment.wrappers, as docs/environments.md shows."
)


def box_bounds(
    space: spaces.Box,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Lower and upper bounds of a Box, flat, and which dimensions are bounded on both sides.

    What stands for "no bound" counts as none: infinity, floats from 1e30 (or the type's largest),
    and the limits of integers of 32 and 64 bits.
    """
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
    kind: np.dtype[Any] = np.dtype(space.dtype)
    least, most = -_HUGE, _HUGE
    if kind.kind == "f":
        most = min(_HUGE, float(np.finfo(kind).max))
        least = -most
    elif kind.kind in "iu" and kind.itemsize >= 4:
        limits = np.iinfo(kind)
        most = float(limits.max - _MARGIN)
        least = float(limits.min + _MARGIN) if kind.kind == "i" else least
    below = space.bounded_below.reshape(-1) & (low > least)
    above = space.bounded_above.reshape(-1) & (high < most)
    return low, high, below & above


def require_observation(space: AnySpace) -> None:
    """Stop unless observations can be stored and read as arrays.

    Raises:
        SettingError: a part of the space has no such form.
    """
    good, bad = _parts(space)
    if not bad:
        return
    key, part = next(iter(bad.items()))
    remedies = []
    if good and isinstance(space, spaces.Dict):
        kept = [name for name in space.spaces if not _parts(space.spaces[name])[1]]
        if kept:
            names = ", ".join(map(str, kept))
            remedies.append(
                f"`environment.wrappers: [{{FilterObservation: {{filter_keys: [{names}]}}}}]`"
            )
    if _flattens(space):
        remedies.append("`environment.wrappers: [FlattenObservation]`")
    raise SettingError(
        "environment",
        f"observations of type {type(part).__name__}{f' (key {key})' if key else ''} are not "
        "supported",
        "Use Box, Discrete, MultiDiscrete, MultiBinary or Dict observations: "
        + (f"set {' or '.join(remedies)}." if remedies else _OWN_WRAPPER),
    )


_OWN_WRAPPER = (
    "name a gymnasium.ObservationWrapper of your own that makes such an observation in "
    "environment.wrappers, as docs/environments.md shows."
)


def _parts(space: AnySpace, key: str = "") -> tuple[dict[str, AnySpace], dict[str, AnySpace]]:
    """The parts of an observation that can be stored, by dotted key, and those that cannot."""
    if not isinstance(space, spaces.Dict):
        kinds = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
        return ({key: space}, {}) if isinstance(space, kinds) else ({}, {key: space})
    good: dict[str, AnySpace] = {}
    bad: dict[str, AnySpace] = {}
    for name, inner in space.spaces.items():
        one, other = _parts(inner, f"{key}.{name}" if key else str(name))
        good |= one
        bad |= other
    return good, bad


def _flattens(space: AnySpace) -> bool:
    """Whether Gymnasium's FlattenObservation makes a vector of it."""
    try:
        return isinstance(spaces.flatten_space(space), spaces.Box)
    except (NotImplementedError, TypeError, ValueError):
        return False


def _some_bounds(space: spaces.Box) -> tuple[Any, Any]:
    """Bounds within those of a Box, for an error text: a number each if that will do."""
    low, high = space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist()
    _, _, bounded = box_bounds(space)
    for i, known in enumerate(bounded.tolist()):
        if known:
            continue
        if low[i] <= -1 < high[i]:
            low[i], high[i] = max(low[i], -1), min(high[i], 1)
        elif low[i] > -1:
            low[i], high[i] = low[i], min(high[i], low[i] + 2)
        else:
            low[i], high[i] = max(low[i], high[i] - 2), high[i]
    same = len(set(low)) == len(set(high)) == 1
    return (low[0], high[0]) if same else (low, high)
