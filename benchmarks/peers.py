"""One workload with Stable-Baselines3, or with SBX, which is used alike; prints a line of JSON."""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack


def build(library: ModuleType, workload: str, seed: int, steps: int) -> Any:
    """The model of a workload; the same hyperparameters as in workloads/."""
    common: dict[str, Any] = {"seed": seed, "device": "cpu", "verbose": 0}
    if workload == "W1":
        return library.PPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", n_envs=8, seed=seed),
            n_steps=32,
            batch_size=256,
            n_epochs=20,
            gamma=0.98,
            gae_lambda=0.8,
            ent_coef=0.0,
            learning_rate=lambda left: 1e-3 * left,
            clip_range=0.2,
            **common,
        )
    if workload == "W2":
        return library.DQN(
            "MlpPolicy",
            make_vec_env("CartPole-v1", n_envs=1, seed=seed),
            learning_rate=2.3e-3,
            batch_size=64,
            buffer_size=100_000,
            learning_starts=1_000,
            gamma=0.99,
            target_update_interval=10,
            train_freq=256,
            gradient_steps=128,
            exploration_fraction=8_000 / steps,
            exploration_final_eps=0.04,
            policy_kwargs={"net_arch": [256, 256]},
            **common,
        )
    if workload == "W3":
        return library.SAC(
            "MlpPolicy",
            make_vec_env("HalfCheetah-v5", n_envs=1, seed=seed),
            learning_rate=3e-4,
            batch_size=256,
            buffer_size=1_000_000,
            learning_starts=1_000,
            **common,
        )
    if workload == "W4":
        return library.DQN(
            "CnnPolicy",
            _pong(1, seed),
            learning_rate=1e-4,
            batch_size=32,
            buffer_size=50_000,
            optimize_memory_usage=True,
            replay_buffer_kwargs={"handle_timeout_termination": False},
            learning_starts=1_000,
            gamma=0.99,
            target_update_interval=1_000,
            train_freq=4,
            gradient_steps=1,
            exploration_fraction=800 / steps,
            exploration_final_eps=0.01,
            **common,
        )
    return library.PPO(
        "CnnPolicy",
        _pong(8, seed),
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        gamma=0.99,
        gae_lambda=0.95,
        ent_coef=0.01,
        learning_rate=lambda left: 2.5e-4 * left,
        clip_range=0.1,
        **common,
    )


def _pong(count: int, seed: int) -> Any:
    import ale_py

    gym.register_envs(ale_py)
    return VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=count, seed=seed), 4)


def main(name: str, workload: str, seed: int, steps: int) -> dict[str, float]:
    """Train with as many threads as suit the networks best; SBX takes what it likes."""
    if name == "sbx":
        import sbx as library
    else:
        import stable_baselines3 as library
    large = workload in ("W3", "W4", "W5")
    torch.set_num_threads(len(os.sched_getaffinity(0)) if large else 1)
    model = build(library, workload, seed, steps)
    begin = perf_counter()
    model.learn(steps)
    seconds = perf_counter() - begin
    returns = [episode["r"] for episode in model.ep_info_buffer]
    return {
        "seconds": seconds,
        "env_steps": model.num_timesteps,
        "return": float(np.mean(returns[-20:])) if returns else float("nan"),
    }


if __name__ == "__main__":
    gym.logger.min_level = gym.logger.ERROR
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
