"""Measurements: one convention, an entry ``measurements`` of a Dict observation.

They are numbers that come with every observation and say how things stand, such as health or what
has been earned so far. Agents may predict what becomes of them. An entry ``goal`` beside them says
what they are worth. Environments without measurements get them from
`coach.environments.measured`.
"""

from __future__ import annotations

import numpy as np
from coach.core.errors import SettingError
from coach.core.spec import Spec
from gymnasium import spaces

#: Keys in a Dict observation.
MEASUREMENTS, GOAL = "measurements", "goal"


def entry_size(spec: Spec, key: str) -> int:
    """How many numbers an entry of a Dict observation has; 0 without such an entry.

    Raises:
        SettingError: the entry is something else than a vector of floats.
    """
    if not isinstance(spec.observation, spaces.Dict) or key not in spec.observation.spaces:
        return 0
    entry = spec.observation.spaces[key]
    floats = isinstance(entry, spaces.Box) and np.issubdtype(entry.dtype, np.floating)
    if not floats or len(entry.shape or ()) != 1:
        raise SettingError(
            "environment",
            f"the observation's '{key}' is {entry}, which is no vector of floats",
            "Rename the entry if it is something else; numbers of other types can be measured with "
            "the wrapper coach.environments.measured:AddMeasurements.",
        )
    return int(entry.shape[0])  # type: ignore[index]
