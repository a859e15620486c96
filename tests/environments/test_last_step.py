"""The last action and reward as observations: from the beginning of an episode, in every mode."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.core.errors import SettingError
from coach.environments.last_step import LastStep
from gymnasium import spaces
from mode_runs import go_on, outcome, settings_for, states, trained
from small_loop import small_loop


class Counter(gym.Env[Any, Any]):
    """Pays ten for every step so far and an action's number; episodes of three steps."""

    def __init__(self, action: spaces.Space[Any], observation: spaces.Space[Any] | None = None):
        self.action_space = action
        self.observation_space = observation or spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        pay = 10.0 * self.t + float(np.sum(action))
        return self._observe(), pay, self.t == 3, False, {}

    def _observe(self) -> Any:
        drawn = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"inner": drawn} if isinstance(self.observation_space, spaces.Dict) else drawn


@pytest.mark.parametrize(
    ("space", "action", "shown"),
    [
        (spaces.Discrete(3, start=4), 5, [0, 1, 0]),
        (spaces.Box(2, 8, (2,), np.float32), np.array([3.5, 7.0], np.float32), [3.5, 7.0]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
    ],
)
def test_shows_the_step_that_led_here_and_nothing_at_a_beginning(
    space: spaces.Space[Any], action: Any, shown: list[float]
) -> None:
    env = LastStep(Counter(space))
    for _ in range(2):
        obs, _ = env.reset(seed=1)
        assert env.observation_space.contains(obs)
        assert not obs["last_action"].any()
        assert obs["last_reward"].tolist() == [0.0]
        for t in (1, 2, 3):
            obs, reward, *_ = env.step(action)
            assert env.observation_space.contains(obs)
            assert obs["last_action"].tolist() == shown
            assert obs["last_reward"].tolist() == [reward] == [10.0 * t + float(np.sum(action))]


def test_joins_a_dict_and_clips_what_it_shows() -> None:
    inner = spaces.Dict({"inner": spaces.Box(-1, 1, (2,), np.float32)})
    env = LastStep(Counter(spaces.Discrete(2), inner), reward_clip=1.0)
    env.reset(seed=1)
    obs, reward, *_ = env.step(1)
    assert reward == 11.0
    assert set(obs) == {"inner", "last_action", "last_reward"}
    assert env.observation_space.contains(obs)
    assert obs["last_reward"].tolist() == [1.0]
    with pytest.raises(SettingError, match="'last_action' already"):
        LastStep(env)


def remembering(**changed: Any) -> dict[str, Any]:
    """A preset of R2D2 that sees its last step."""
    flat = {"type": "mlp", "hidden": []}
    network = {
        "embedder": {"observation": "mlp", "last_action": flat, "last_reward": flat},
        "middleware": {"type": "lstm", "hidden": 8},
        "heads": {"q": "q"},
    }
    settings = settings_for({"type": "r2d2", "network": network}, **{"steps": 128, **changed})
    settings["environment"]["wrappers"] = ["coach.environments.last_step:LastStep"]
    settings["memory"] = {
        "type": "sequence_replay", "capacity": 400, "batch_size": 4, "length": 8, "burn_in": 2,
        "overlap": 4, "warmup": 32, "updates_per_step": 0.1,
    }  # fmt: skip
    return settings


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_same_in_every_mode(mode: str, tmp_path: Path) -> None:
    wanted = outcome(tmp_path, remembering(), source=False)
    run = {"mode": mode, "workers": 2 if mode == "sync" else 1, "slots": 1}
    assert outcome(tmp_path, remembering(worker_kind="thread", **run), source=False) == wanted


def test_a_resumed_run_goes_on_with_it(tmp_path: Path) -> None:
    """Interrupted within an episode, whose last step the environments show again."""
    wanted = states(trained(tmp_path / "whole", remembering()))
    begun = trained(tmp_path / "part", remembering(steps=80))
    assert states(go_on(begun, steps=128)) == wanted


def test_sequences_hold_it() -> None:
    """Row by row: the action and reward of the row before, and nothing behind a boundary."""
    flat = {"type": "mlp", "hidden": []}
    network = {"embedder": flat, "middleware": {"type": "gru", "hidden": 6}, "heads": {"q": "q"}}
    agent = {"type": "r2d2", "network": network}
    make = partial(Counter, spaces.Discrete(3))
    memory = {"length": 8, "burn_in": 2, "overlap": 0}
    rig = small_loop(agent, lambda: LastStep(make()), "sequence_replay", **memory)
    batch = None
    while batch is None:
        rig.memory.write(rig.actor.collect())
        batch = next(iter(rig.memory.batches(lambda batch: batch)), None)
    whole = batch.unflatten()
    shown, paid = whole.obs["last_action"], whole.obs["last_reward"][..., 0]  # [L, M, 3], [L, M]
    acted = torch.nn.functional.one_hot(whole.action, 3).float()
    alive = ~whole.boundary[:-1]
    assert bool((~alive).any())
    assert torch.equal(shown[1:], acted[:-1] * alive.unsqueeze(-1))
    assert torch.equal(paid[1:], whole.reward[:-1] * alive)
    assert torch.equal(whole.next_obs["last_action"], acted)
    assert torch.equal(whole.next_obs["last_reward"][..., 0], whole.reward)
