"""Periods of the Atari presets, in agent steps, as the published code has them.

Sources: the configurations of Dopamine and DQN Zoo for each paper; both count agent steps (or
frames, four of them a step), where ``target_every`` counts updates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.runners.preset import load
from gymnasium import spaces


class Published(NamedTuple):
    target_period: int
    warmup: int
    decay: int
    epsilon: float
    evaluation: float
    adam_eps: float | None
    lr: float


PRESETS = {
    "Atari_DQN": Published(10_000, 50_000, 1_000_000, 0.1, 0.05, None, 2.5e-4),
    "Atari_C51": Published(10_000, 50_000, 1_000_000, 0.01, 0.001, 0.01 / 32, 2.5e-4),
    "Atari_QRDQN": Published(10_000, 50_000, 1_000_000, 0.01, 0.001, 0.01 / 32, 5e-5),
    "Atari_IQN": Published(10_000, 50_000, 1_000_000, 0.01, 0.001, 0.01 / 32, 5e-5),
    "Atari_FQF": Published(10_000, 50_000, 1_000_000, 0.01, 0.001, 0.01 / 32, 5e-5),
    "Atari_Munchausen": Published(8_000, 20_000, 250_000, 0.01, 0.001, 0.01 / 32, 5e-5),
    "Atari_Rainbow": Published(8_000, 20_000, 0, 0.0, 0.0, 1.5e-4, 6.25e-5),
}


@pytest.mark.parametrize("name", PRESETS)
def test_periods_are_those_of_the_published_code(name: str) -> None:
    _, settings = load(name)
    published, memory, agent = PRESETS[name], settings["memory"], settings["agent"]
    assert memory["updates_per_step"] == 0.25
    assert agent["target_every"] / memory["updates_per_step"] == published.target_period
    assert memory["warmup"] == published.warmup
    assert float(settings["optimizer"]["lr"]) == published.lr
    if published.adam_eps is not None:
        assert float(settings["optimizer"]["eps"]) == published.adam_eps
    assert settings["run"]["steps"] == 50_000_000, "200 million frames"
    if published.decay:
        spec = Spec(spaces.Box(0, 255, (4, 84, 84)), spaces.Discrete(6))
        explore: Any = build_part("exploration", agent["exploration"], "e", spec=spec).value
        begin = published.warmup
        for step, share in ((0, 0.0), (begin, 0.0), (begin + published.decay // 2, 0.5)):
            wanted = 1 + share * (published.epsilon - 1)
            assert explore.monitor(step) == {"epsilon": pytest.approx(wanted)}
        for step in (begin + published.decay, 50_000_000):
            assert explore.monitor(step) == {"epsilon": pytest.approx(published.epsilon)}
        assert agent["exploration"]["evaluation_epsilon"] == published.evaluation
