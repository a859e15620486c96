"""Each agent learns that a time limit is not the end (invariant I5).

A task that pays 1 a step, is cut off every few steps and never ends: with a discount of 0.8 every
state is worth 5. An agent that took the time limit for a terminal state would learn about 2.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.schema import build_part
from coach.environments.serial import SerialEnvs
from coach.optimizers.adam import Adam
from coach.runners.actor import Actor
from gymnasium import spaces

GAMMA, LIMIT = 0.8, 3
WORTH = 1 / (1 - GAMMA)
SMALL = {"type": "mlp", "hidden": [16]}


class Endless(gym.Env[Any, Any]):
    """Pays 1 a step until it is cut off."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)

    def __init__(self, action: spaces.Space[Any]) -> None:
        self.action_space = action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.ones(1, np.float32), 1.0, False, self.steps >= LIMIT, {}


def learn(
    agent: dict[str, Any], memory: dict[str, Any], action: spaces.Space[Any], fragments: int
) -> Any:
    torch.manual_seed(0)
    envs = SerialEnvs(lambda: Endless(action), 4, seed=0)
    built = build_part("agent", agent, spec=envs.spec).value
    held: Memory = build_part("memory", memory, spec=envs.spec, num_envs=4, seed=0).value
    learner = Learner(built, Adam(lr=1e-2))
    actor = Actor(built, envs, held.fragment_length, seed=0)
    for _ in range(fragments):
        held.write(actor.collect())
        for batch in held.batches(learner.prepare):
            learner.step(batch, 0)
    return built


REPLAY = {"type": "replay", "capacity": 200, "batch_size": 32, "warmup": 40, "discount": GAMMA}


@pytest.mark.parametrize("n_step", [1, 2, 5])
def test_dqn(n_step: int) -> None:
    agent = learn(
        {"type": "dqn", "target_every": 10, "network": {"embedder": SMALL, "heads": {"q": "q"}}},
        {**REPLAY, "n_step": n_step},
        spaces.Discrete(2),
        400,
    )
    values = agent.online(torch.ones(1, 1)).q.mean
    assert values.tolist()[0] == pytest.approx([WORTH, WORTH], rel=0.05)


def test_ppo() -> None:
    agent = learn(
        {
            "type": "ppo",
            "network": {"embedder": SMALL, "heads": {"policy": "categorical", "value": "value"}},
        },
        {"type": "rollout", "horizon": 8, "epochs": 10, "discount": GAMMA},
        spaces.Discrete(2),
        40,
    )
    assert agent.network(torch.ones(1, 1)).value.item() == pytest.approx(WORTH, rel=0.05)


def test_sac() -> None:
    agent = learn(
        {
            "type": "sac",
            "temperature": 1e-4,
            "learn_temperature": False,
            "target_tau": 0.1,
            "actor": {"embedder": SMALL, "heads": {"policy": "squashed_gaussian"}},
            "critic": {
                "embedder": {"type": "mlp", "hidden": []},
                "heads": {"q": {"type": "continuous_q", "hidden": [16]}},
            },
        },
        REPLAY,
        spaces.Box(-1, 1, (1,)),
        500,
    )
    obs = torch.ones(1, 1)
    values = agent.critic(obs).q(agent.actor(obs).policy.mode())
    assert values.flatten().tolist() == pytest.approx([WORTH, WORTH], rel=0.05)
