"""When objectives are compiled, that they still say the same, and what is told about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from coach.core.compiling import LEAST_UPDATES, Compiling
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.optimizers.adam import Adam
from gymnasium import spaces
from small_loop import Ladder, small_loop

compiled_by_torch = torch.compile


@pytest.fixture
def no_code_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for compiling, and run as traced: a C++ compiler would take half a minute."""

    def trace(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        traced: Callable[..., Any] = compiled_by_torch(function, backend="aot_eager", dynamic=False)
        return traced

    monkeypatch.setattr(torch, "compile", trace)


@pytest.mark.parametrize(
    ("wanted", "device", "updates", "env_steps", "on"),
    [
        (False, "cuda", 10_000, 10_000, False),
        (True, "cpu", 0, 0, True),
        ("auto", "cpu", 10_000, 10_000, False),
        ("auto", "cuda", 100, 400, False),  # too early to say
        ("auto", "cuda", 250, 1_000, True),
        ("auto", "cuda", 250, 1_000_000 - 4 * LEAST_UPDATES + 4, False),  # too little follows
    ],
)
def test_when_objectives_are_compiled(
    wanted: Any, device: str, updates: int, env_steps: int, on: bool
) -> None:
    compiling = Compiling(wanted, torch.device(device), steps=1_000_000)
    compiling.decide(updates, env_steps)
    assert compiling.on == on


def test_that_is_decided_once() -> None:
    compiling = Compiling("auto", torch.device("cuda"), steps=1_000)
    compiling.decide(250, 500)
    assert not compiling.on
    compiling.decide(10**9, 501)
    assert not compiling.on


@pytest.mark.parametrize("agent", ["dqn", "ppo", "sac"])
@pytest.mark.usefixtures("no_code_is_generated")
def test_compiled_objectives_say_the_same(agent: str) -> None:
    action = spaces.Box(-1, 1, (2,)) if agent == "sac" else spaces.Discrete(3)
    told: list[str] = []
    learners = []
    for compiling in (Compiling(), Compiling(True, say=told.append)):
        loop = small_loop(agent, lambda: Ladder(action))
        loop.learner = Learner(loop.agent, Adam(lr=1e-3), record=False, compiling=compiling)
        batch = loop.batch()
        for _ in range(3):
            loop.learner.step(batch, 0)
        learners.append(loop.learner)
    plain, traced = (learner.agent.state_dict() for learner in learners)
    for name, value in plain.items():
        torch.testing.assert_close(traced[name], value, rtol=1e-4, atol=1e-6)
    assert len(told) == 1
    assert "Compiling took" in told[0]


def test_a_failure_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda f, **_: compiled_by_torch(f, backend=fail))
    loop = small_loop("dqn", lambda: Ladder(spaces.Discrete(3)))
    loop.learner = Learner(loop.agent, Adam(), compiling=Compiling(True))
    with pytest.raises(SettingError, match=r"run\.compile.*\n?.*no compiler here(.|\n)*false"):
        loop.learner.step(loop.batch(), 0)
