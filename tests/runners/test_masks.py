"""Observations that allow no action: refused where something is to be done, else worth nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.core.errors import FailedEnvironmentError
from gymnasium import spaces
from small_loop import agents, served, small_loop


class Gates(gym.Env[Any, Any]):
    """Three gates, of which one or two are open; episodes of five steps.

    Args:
        shut: steps, over all episodes, whose observation has all gates shut; 0 is the first reset.
        terminal: whether an episode ends in a terminal state or at a time limit.
    """

    observation_space = spaces.Dict(
        {"place": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.MultiBinary(3)}
    )
    action_space = spaces.Discrete(3)

    def __init__(self, shut: tuple[int, ...] = (), terminal: bool = True) -> None:
        self.shut, self.terminal, self.taken = shut, terminal, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(self.taken == 0 and 0 in self.shut), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.open[action]
        self.taken, self.t = self.taken + 1, self.t + 1
        over = self.t == 5
        obs = self._observe(self.taken in self.shut)
        return obs, 1.0, over and self.terminal, over and not self.terminal, {}

    def _observe(self, shut: bool) -> Any:
        self.open = np.zeros(3, np.int8)
        if not shut:
            self.open[self.np_random.integers(3, size=2)] = 1
        place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"place": place, "action_mask": self.open}


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize(
    ("shut", "terminal", "step"), [(0, True, 0), (3, True, 6), (7, False, 14), (10, False, 20)]
)
def test_refused_with_environment_and_step(
    shut: int, terminal: bool, step: int, explore: bool
) -> None:
    """At a reset, within an episode and behind a time limit, in the second of two environments."""
    made: list[Gates] = []

    def make() -> Gates:
        made.append(Gates((shut,) if len(made) % 2 else (), terminal))
        return made[-1]

    rig = small_loop({"type": "dqn", "network": {"heads": {"q": "q"}}}, make)
    rig.actor.ctx.explore, rig.actor.length = explore, 24
    with pytest.raises(FailedEnvironmentError, match=rf"Environment 1 .* after {step} steps"):
        rig.actor.collect()


@pytest.mark.parametrize("agent", [name for name in agents() if "discrete" in served(name)])
def test_all_gates_may_be_shut_behind_a_terminal_state(agent: str) -> None:
    """What is learned is finite, and never depends on what the network says of that state."""
    shut = tuple(range(5, 200, 5))
    rig = small_loop(agent, partial(Gates, shut))
    rig.train(64)
    assert rig.learner.version > 0
    assert all(bool(torch.isfinite(weight).all()) for weight in rig.agent.parameters())
    for metrics in rig.log.metrics:
        assert all(bool(torch.isfinite(value)) for value in metrics.values())
