"""Runs of any preset on the pretended accelerator, counted, and the same ones on the CPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from coach.core.errors import SettingError
from coach.core.registry import find
from coach.core.schema import build_part, parameters
from coach.core.spec import Spec
from coach.runners import updates as runner_updates
from coach.runners.experiment import Experiment, build_experiment
from device_world import ACTIONS, OBSERVATIONS
from pretended import NAME, Traffic, numbers, pretending
from torch import Tensor

WORLD = f"{Path(__file__).with_name('device_world.py')}:DeviceWorld"
MEMORY: dict[str, Any] = {
    "capacity": 400,
    "batch_size": 8,
    "warmup": 24,
    "updates_per_step": 0.25,
    "horizon": 8,
    "episodes": 4,
    "epochs": 2,
    "length": 8,
    "burn_in": 2,
    "overlap": 4,
}


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them, section by section."""
    both = {
        key: merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in change.items()
    }
    return {**base, **both}


def preset(agent: str, change: dict[str, Any] | None = None) -> dict[str, Any]:
    """A small preset of an agent: its first action space and memory, unless ``change`` differs."""
    change = change or {}
    kind = find("agent", agent)
    memory = change.get("memory", {}).get("type", kind.learns_from[0])  # type: ignore[attr-defined]
    known = parameters(find("memory", memory))
    seen = "measured" if kind.future_key else "vector"  # type: ignore[attr-defined]
    world = {"action": action_of(agent), "observation": seen}
    base = {
        "environment": {"id": WORLD, "kwargs": world},
        "agent": {"type": agent},
        "memory": {"type": memory, **{k: v for k, v in MEMORY.items() if k in known}},
        # Adam divides by tiny gradients, whose rounding errors differ; a larger eps makes that small.
        "optimizer": {"type": "adam", "lr": 1e-3, "max_grad_norm": 1.0, "eps": 1e-4},
        "run": {"steps": 512, "envs": 4, "log_every": 64, "threads": 1},
        "evaluation": {"every": 0, "episodes": 3},
    }
    return merged(base, change)


def action_of(agent: str) -> str:
    """The first action space that an agent serves."""
    seen = OBSERVATIONS["measured" if find("agent", agent).future_key else "vector"]  # type: ignore[attr-defined]
    for name, space in ACTIONS.items():
        try:
            build_part("agent", agent, "agent", spec=Spec(seen, space))
        except SettingError:
            continue
        return name
    raise AssertionError(f"{agent} serves no action space")


@dataclass
class Phase:
    """What was counted in one part of the loop.

    Args:
        waits: by line of Coach, all calls together.
        uploads: likewise.
        calls: how often it came.
        most_waits: in a single call.
        most_uploads: in a single call.
    """

    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    most_waits: int = 0
    most_uploads: int = 0

    def take(self, traffic: Traffic, calls: int = 1) -> None:
        """Take in what was counted since the last time, in so many calls."""
        self.calls += calls
        self.waits += traffic.waits
        self.uploads += traffic.uploads
        if calls:
            self.most_waits = max(self.most_waits, -(-traffic.waits.total() // calls))
            self.most_uploads = max(self.most_uploads, -(-traffic.uploads.total() // calls))
        traffic.clear()


@dataclass
class Trained:
    """A short run.

    Args:
        experiment: as it is at the end.
        acting: per step of the environments.
        updating: per update, from drawing the batch to filing its priorities.
        observing: per fragment, running statistics and dictionaries.
    """

    experiment: Experiment
    acting: Phase = field(default_factory=Phase)
    updating: Phase = field(default_factory=Phase)
    observing: Phase = field(default_factory=Phase)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Of the agent, on the CPU."""
        return {n: numbers(t).detach() for n, t in self.experiment.agent.state_dict().items()}


def train(settings: dict[str, Any], updates: int, traffic: Traffic | None = None) -> Trained:
    """Run the loop of `coach.runners.loop` until so many updates were made, and count.

    The first fragment and the first update are left out: there constants are brought to the device.
    """
    experiment = build_experiment(settings)
    memory, learner, source = experiment.memory, experiment.learner, experiment.source
    done = Trained(experiment)
    traffic = traffic or Traffic()
    made = 0
    fragments = 0
    counted = 0
    while made < updates or not counted:
        traffic.clear()
        fragment = source.collect()
        if fragments:
            done.acting.take(traffic, len(fragment))
        memory.write(fragment)
        traffic.clear()
        count = 0
        for _ in runner_updates.updates(learner, memory, lambda: False, fragments):
            count += 1
        if made:
            done.updating.take(traffic, count)
            counted += count
        traffic.clear()
        learner.agent.observe(fragment)
        if fragments:
            done.observing.take(traffic)
        source.publish(learner.agent.policy, learner.version)
        made += count
        fragments += 1
        assert fragments < 200, "no update became due"
    source.close()
    return done


def on_device(settings: dict[str, Any], updates: int = 6, **device: Any) -> Trained:
    """The run on the pretended accelerator."""
    with pretending(**device) as traffic:
        return train(merged(settings, {"run": {"device": NAME}}), updates, traffic)


def on_cpu(settings: dict[str, Any], updates: int = 6, one_ahead: bool = True) -> Trained:
    """The same run on the CPU; with ``one_ahead`` its updates come in the accelerator's order."""
    with pytest.MonkeyPatch.context() as patch:
        if one_ahead:
            patch.setattr(runner_updates, "is_accelerator", lambda device: True)
        return train(merged(settings, {"run": {"device": "cpu"}}), updates)


def differences(one: Trained, two: Trained) -> dict[str, float]:
    """Largest difference of every tensor of the agents, as a share of its size or of 1."""
    found = {}
    others = two.weights
    for name, value in one.weights.items():
        other = others[name]
        assert value.shape == other.shape, name
        if value.numel():
            size = other.double().abs().nan_to_num(posinf=0).max().clamp(min=1)
            apart = (value.double() - other.double()).abs().nan_to_num(0)
            found[name] = float((apart / size).max())
    return found
