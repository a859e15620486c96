"""Nothing that is learned depends on the unit in which an environment takes its actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coach.core.registry import find
from lever_world import LeverWorld
from mode_runs import outcome, settings_for

WORLD = f"{Path(__file__).with_name('lever_world.py')}:{LeverWorld.__name__}"
#: Powers of two, so that scaling there and back changes no bit.
BOUNDS = {
    "plain": ([-1, -1], [1, 1]),
    "tiny and huge": ([-(2**-12), -(2**20)], [2**-12, 2**20]),
    "on one side": ([0, -(2**6)], [4, 0]),
}
AGENTS: dict[str, Any] = {
    "sac": {"type": "sac", "exploration": {"type": "uniform", "steps": 40, "then": "sample"}},
    "sac, gaussian noise": {"type": "sac", "exploration": {"type": "gaussian", "scale": 0.3}},
    "naf": {"type": "naf", "exploration": {"type": "gaussian", "scale": 0.3}},
    "naf, drifting noise": {"type": "naf", "exploration": "ornstein_uhlenbeck"},
    "ppo": {"type": "ppo"},
    "ppo, squashed": {
        "type": "ppo",
        "network": {"heads": {"policy": "squashed_gaussian", "value": "value"}},
    },
    "actor_critic": {"type": "actor_critic"},
}
N_STEP = {"naf": 3, "sac": 2}


def learned(agent: str, bounds: str, folder: Path) -> dict[str, object]:
    """Weights, memory and table of a small run."""
    low, high = BOUNDS[bounds]
    settings = settings_for(AGENTS[agent], steps=192)
    settings["environment"] = {"id": WORLD, "kwargs": {"low": low, "high": high}}
    if agent in N_STEP:
        settings["memory"]["n_step"] = N_STEP[agent]
    return outcome(folder, settings)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_unit_of_the_action_changes_no_bit(agent: str, tmp_path: Path) -> None:
    wanted = learned(agent, "plain", tmp_path)
    assert learned(agent, "tiny and huge", tmp_path) == wanted
    found = learned(agent, "on one side", tmp_path)
    assert found["progress.csv"] == wanted["progress.csv"]


def test_every_agent_for_boxes_is_tried() -> None:
    """An agent that serves Box actions belongs into the list above."""
    tried = {settings["type"] for settings in AGENTS.values()}
    assert {"sac", "naf", "ppo", "actor_critic"} <= tried
    assert all(find("agent", name) for name in tried)
