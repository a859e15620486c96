"""Small runs of any registered agent in any mode."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import fingerprint
from coach.core.errors import SettingError
from coach.core.registry import entries, find
from coach.core.schema import build_part, parameters
from coach.core.spec import Spec
from coach.runners.training import Run, resume, start
from gymnasium import spaces
from rich.console import Console
from small_loop import small_agent
from tiny_world import ACTIONS, TinyWorld

WORLD = f"{Path(__file__).with_name('tiny_world.py')}:TinyWorld"
MEMORY = {
    "capacity": 400,
    "batch_size": 16,
    "warmup": 24,
    "updates_per_step": 0.25,
    "horizon": 8,
    "epochs": 2,
}


def agents() -> list[str]:
    """Every registered agent to which `TinyWorld` shows all it needs, plugins included.

    Those that look ahead at an entry of the observation have tests of their own.
    """
    names = [entry.name for entry in entries("agent")]
    return [name for name in names if not find("agent", name).future_key]  # type: ignore[attr-defined]


@cache
def action_of(agent: str) -> str:
    """The first action space that an agent serves."""
    for name, space in ACTIONS.items():
        try:
            observation = TinyWorld().observation_space
            build_part("agent", agent, "agent", spec=Spec(observation, space))
        except SettingError:
            continue
        return name
    raise AssertionError(f"{agent} serves no action space")


def settings_for(agent: str | dict[str, Any], **run: Any) -> dict[str, Any]:
    """A preset for a small run."""
    name = agent if isinstance(agent, str) else agent["type"]
    wanted = find("agent", name).learns_from
    memory = wanted[0]  # the memory that the order is named after
    known = parameters(find("memory", memory))
    return {
        "environment": {"id": WORLD, "kwargs": {"action": action_of(name)}},
        "agent": small_agent(agent),
        "memory": {"type": memory, **{k: v for k, v in MEMORY.items() if k in known}},
        "optimizer": {"type": "adam", "lr": 1e-3},
        "run": {"steps": 256, "envs": 4, "fragment_length": 4, "log_every": 64, **run},
        "evaluation": {"every": 0},
    }


def trained(folder: Path, settings: dict[str, Any]) -> Run:
    """The run of a preset, to its end."""
    run = start("tiny", settings, folder, Console(quiet=True), [], quiet=True)
    run.train()
    return run


def states(run: Run) -> dict[str, object]:
    """All but how the rows of the partner's memory are spread over files."""
    found = fingerprint.of_run(run)
    return {name: value for name, value in found.items() if not name.endswith("/chunks")}


class Alone:
    """Outcomes in mode single of what several tests compare with; each is made once.

    Args:
        folder: of their runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, dict[str, object]] = {}

    def __call__(self, agent: str | dict[str, Any], source: bool = True) -> dict[str, object]:
        """The outcome of an agent's small run, with or without the state of its environments."""
        key = json.dumps(agent)
        if key not in self.made:
            self.made[key] = outcome(self.folder, settings_for(agent))
        return {k: v for k, v in self.made[key].items() if source or not k.startswith("source/")}


def go_on(run: Run, **changed: Any) -> Run:
    """The run taken up again, with some settings of its section changed."""
    settings = run.experiment.plain | {"run": run.experiment.plain["run"] | changed}
    again = resume(run.folder, settings, Console(quiet=True), [], quiet=True)
    again.train()
    return again


def outcome(folder: Path, settings: dict[str, Any], source: bool = True) -> dict[str, object]:
    """Weights, optimisers, memory, streams and progress.csv after a run, byte by byte."""
    found = fingerprint.of_run(trained(folder, settings))
    return {k: v for k, v in found.items() if source or not k.startswith("source/")}


def spec_of(agent: str) -> Spec:
    """The spec that `settings_for` gives an agent."""
    space: spaces.Space[Any] = ACTIONS[action_of(agent)]
    return Spec(TinyWorld().observation_space, space)
