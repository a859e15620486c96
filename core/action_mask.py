"""Actions that are not allowed: one convention, an entry ``action_mask`` of a Dict observation.

It is 1 for every action that may be taken, 0 for the others. Environments that tell it in ``info``
have it moved into the observation by `coach.environments.action_mask`. Networks do not see it as an
input: it rules actions out of what their heads return, so acting, exploring and targets all heed
it.

Only behind a terminal state may a mask allow no action: nothing is done there, and its value counts
for nothing. Anywhere else, behind a time limit too, it is an error of the environment, see
`check_masks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from coach.core.errors import FailedEnvironmentError, SettingError
from coach.core.spec import AnySpace, Spec
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

#: Key of the mask in a Dict observation.
ACTION_MASK = "action_mask"


def has_mask(spec: Spec) -> bool:
    """Whether the observation says which actions are allowed.

    Raises:
        SettingError: it has an entry of that name that does not fit the actions.
    """
    if not isinstance(spec.observation, spaces.Dict):
        return False
    mask = spec.observation.spaces.get(ACTION_MASK)
    if mask is None:
        return False
    actions = spec.action
    if not isinstance(actions, spaces.Discrete) or mask.shape != (int(actions.n),):
        raise SettingError(
            "environment",
            f"the observation's '{ACTION_MASK}' is {mask}, which is no mask for actions {actions}",
            "It needs one 0 or 1 for each action of a Discrete space; rename it if it is something "
            "else.",
        )
    return True


def without_mask(spec: Spec) -> AnySpace:
    """The observation space without the mask."""
    if not has_mask(spec):
        return spec.observation
    assert isinstance(spec.observation, spaces.Dict)
    kept = {k: space for k, space in spec.observation.spaces.items() if k != ACTION_MASK}
    if not kept:
        raise SettingError("environment", "the observation holds nothing but the action mask")
    return spaces.Dict(kept)


def check_masks(
    obs: Any, env_ids: Tensor, step: int, over: NDArray[np.bool_] | None = None
) -> None:
    """Refuse observations that allow no action.

    Args:
        obs: ``N`` observations with a mask, as arrays.
        env_ids: ``[N]`` ids of the environments.
        step: steps of the run so far, for the message.
        over: ``[N]`` those behind a terminal state, which may allow none.

    Raises:
        FailedEnvironmentError: one allows none.
    """
    mask = obs[ACTION_MASK]
    if mask.any() if len(mask) == 1 else mask.any(-1).all():  # asked after every step
        return
    stuck = ~mask.any(-1)
    if over is not None:
        stuck &= ~over
    if stuck.any():
        number = int(env_ids[int(stuck.argmax())])
        raise FailedEnvironmentError(
            f"Environment {number} allows no action after {step:,} steps of this run: its "
            f"'{ACTION_MASK}' is all 0 in an observation that is not behind a terminal state.",
            "Let the environment terminate the episode where nothing can be done, or allow an "
            "action that changes nothing.",
        )
