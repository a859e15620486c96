"""Settings that are right one by one and contradict each other are refused, or said."""

from __future__ import annotations

from typing import Any

import pytest
from coach.core.errors import SettingError
from coach.runners.experiment import build_experiment
from coach.runners.preset import load


def build(preset: str, *overrides: str) -> list[str]:
    """Build and throw away; returns what was said meanwhile."""
    said: list[str] = []
    build_experiment(load(preset, overrides)[1], say=said.append).source.close()
    return said


@pytest.mark.parametrize(
    ("preset", "overrides", "words"),
    [
        ("CartPole_DQN", ["memory.capacity=63", "memory.warmup=0"], ["memory.capacity: 63", "64"]),
        (
            "CartPole_DQN",
            ["memory={type: replay, capacity: 28, batch_size: 31, warmup: 0}", "run.envs=4"],
            ["memory.capacity: 28 transitions are fewer", "Make it at least 32"],
        ),
        (
            "CartPole_DQN",
            ["memory={type: replay, capacity: 20, batch_size: 5, warmup: 0, n_step: 20}"],
            ["memory.n_step: 20 transitions", "Make capacity at least 21"],
        ),
        (
            "CartPoleMasked_R2D2",
            ["memory={type: sequence_replay, capacity: 99, length: 9, overlap: 3, batch_size: 20}"],
            ["memory.capacity: 8 sequences", "fewer than a minibatch of 20"],
        ),
        (
            "CartPole_PPO",
            ["memory={type: rollout, horizon: 10, batch_size: 71}", "run.envs=7"],
            ["memory.batch_size: a rollout of 10 steps in 7 environments has 70", "at most 70"],
        ),
    ],
)
def test_memories_too_small_for_a_minibatch(
    preset: str, overrides: list[str], words: list[str]
) -> None:
    with pytest.raises(SettingError) as caught:
        build(preset, *overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("CartPole_DQN", ["memory={type: replay, capacity: 64, batch_size: 64, warmup: 64}"]),
        (
            "CartPole_DQN",
            ["memory={type: replay, capacity: 21, batch_size: 5, warmup: 0, n_step: 20}"],
        ),
        (
            "CartPole_DQN",
            ["memory={type: replay, capacity: 32, batch_size: 31, warmup: 0}", "run.envs=4"],
        ),
        ("CartPole_PPO", ["memory={type: rollout, horizon: 10, batch_size: 70}", "run.envs=7"]),
    ],
)
def test_the_remedies_work(preset: str, overrides: list[str]) -> None:
    assert build(preset, *overrides) == []


def test_the_remedy_for_sequences_works() -> None:
    memory: dict[str, Any] = {
        "type": "sequence_replay", "capacity": 99, "length": 9, "overlap": 3, "burn_in": 2,
        "batch_size": 20, "warmup": 0,
    }  # fmt: skip
    settings = load("CartPoleMasked_R2D2")[1] | {"memory": memory}
    with pytest.raises(SettingError, match="Make it at least") as caught:
        build_experiment(settings)
    needed = int(str(caught.value).split("Make it at least ")[1].split(",")[0])
    memory["capacity"] = needed - settings["run"]["envs"]
    with pytest.raises(SettingError, match="16 sequences"):
        build_experiment(settings)
    memory["capacity"] = needed
    build_experiment(settings).source.close()


def test_a_warmup_that_outlasts_the_memory_is_said() -> None:
    said = build("CartPole_DQN", "memory={type: replay, capacity: 500, warmup: 501}")
    assert any("memory.warmup: updates begin after 501 steps" in text for text in said)
    assert build("CartPole_DQN", "memory={type: replay, capacity: 500, warmup: 500}") == []


@pytest.mark.parametrize(
    ("preset", "extra", "words"),
    [
        ("CartPole_DQN", "agent.network.heads.spare=value", "dqn reads no head called 'spare'"),
        ("CartPole_PPO", "agent.network.heads.q=q", "ppo reads no head called 'q'"),
        (
            "Pendulum_SAC",
            "agent.critic={embedder: {type: mlp, hidden: []}, heads: {q: continuous_q, v: value}}",
            "agent.critic.heads.v: sac reads no head called 'v'",
        ),
    ],
)
def test_a_head_that_nobody_reads_is_refused(preset: str, extra: str, words: str) -> None:
    with pytest.raises(SettingError, match="Remove it; the heads that are read: ") as caught:
        build(preset, extra)
    assert words in str(caught.value)
