"""Settings of small runs that exercise everything a checkpoint has to hold."""

from __future__ import annotations

from typing import Any

NETWORK = {"embedder": {"type": "mlp", "hidden": [16]}}

TINY: dict[str, dict[str, Any]] = {
    "dqn": {
        "environment": {"id": "CartPole-v1"},
        "agent": {
            "type": "dqn",
            "target_every": 7,
            "network": {**NETWORK, "heads": {"q": "dueling_q"}, "normalize_rewards": True},
            "exploration": {
                "type": "epsilon_greedy",
                "epsilon": {"start": 1.0, "end": 0.1, "steps": 300},
            },
        },
        # A ring that is overwritten several times, so that old chunks are dropped.
        "memory": {
            "type": "replay",
            "capacity": 240,
            "batch_size": 16,
            "warmup": 50,
            "updates_per_step": 0.5,
            "n_step": 3,
            "sampler": {"type": "prioritized", "beta": {"start": 0.4, "end": 1.0, "steps": 600}},
        },
        "run": {"steps": 600, "envs": 2, "log_every": 50, "checkpoint_every": 100},
        "evaluation": {"every": 200, "episodes": 2},
    },
    "ppo": {
        "environment": {"id": "CartPole-v1", "max_episode_steps": 30},
        "agent": {
            "type": "ppo",
            "network": {
                **NETWORK,
                "heads": {"policy": "categorical", "value": "value"},
                "normalize_observations": True,
                "normalize_rewards": True,
            },
        },
        "memory": {"type": "rollout", "horizon": 16, "epochs": 2, "batch_size": 16},
        "optimizer": {"type": "adam", "lr": {"start": 1e-3, "end": 0.0, "steps": 600}},
        # Fragments shorter than the horizon: checkpoints fall into the middle of a rollout.
        "run": {
            "steps": 600,
            "envs": 2,
            "fragment_length": 4,
            "log_every": 50,
            "checkpoint_every": 100,
        },
        "evaluation": {"every": 200, "episodes": 2},
    },
    "sac": {
        "environment": {"id": "Pendulum-v1"},
        "agent": {
            "type": "sac",
            "actor": {**NETWORK, "heads": {"policy": "squashed_gaussian"}},
            "critic": {
                "embedder": {"type": "mlp", "hidden": []},
                "heads": {"q": {"type": "continuous_q", "hidden": [16]}},
            },
            "exploration": {"type": "uniform", "steps": 60, "then": "sample"},
        },
        "memory": {
            "type": "replay",
            "capacity": 1_000,
            "batch_size": 16,
            "warmup": 60,
            "updates_per_step": 0.5,
        },
        "run": {"steps": 600, "log_every": 50, "checkpoint_every": 100},
        "evaluation": {"every": 200, "episodes": 2},
    },
}
