"""Heads, noise, rules, memories, observations and masks in combination: they learn and obey."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.registry import entries, find
from coach.core.schema import build_part, parameters
from coach.core.spec import Spec
from gymnasium import spaces
from small_loop import agents, served, small_agent, small_loop, weights

OBSERVATION = spaces.Dict(
    {
        "speed": spaces.Box(-1, 1, (2,), np.float32),
        "picture": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        "action_mask": spaces.MultiBinary(4),
    }
)
SPEC = Spec(OBSERVATION, spaces.Discrete(4))


class Picky(gym.Env[Any, Any]):
    """Fails when an action is taken that the last observation did not allow."""

    observation_space, action_space = OBSERVATION, spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.allowed[action], f"action {action} of {self.allowed}"
        self.steps += 1
        over = self.steps >= 7
        obs = self._observe()
        if over:
            obs["action_mask"] = np.zeros(4, np.int8)  # as many environments tell it
        return obs, float(self.np_random.normal()), over, False, {}

    def _observe(self) -> dict[str, Any]:
        self.allowed = self.np_random.random(4) < 0.5
        self.allowed[self.np_random.integers(4)] = True
        return {
            "speed": self.np_random.uniform(-1, 1, 2).astype(np.float32),
            "picture": self.np_random.integers(0, 256, (36, 36, 1), np.uint8),
            "action_mask": self.allowed.astype(np.int8),
        }


class Blindfolded(Picky):
    """The same without pictures."""

    observation_space = spaces.Dict({k: v for k, v in OBSERVATION.items() if k != "picture"})

    def _observe(self) -> dict[str, Any]:
        return {key: value for key, value in super()._observe().items() if key != "picture"}


def heads() -> list[dict[str, Any]]:
    """Every registered head that provides values of its own, plain and with all its options."""
    found: list[dict[str, Any]] = []
    for entry in entries("head"):
        cls = find("head", entry.name)
        if "values" not in (cls.provides, *cls.also) or entry.name == "dnd_q":
            continue
        options = {k: True for k in ("noisy", "dueling") if k in parameters(cls)}
        small = {k: [8] for k in ("hidden",) if k in parameters(cls)}
        found += [{"type": entry.name}, {"type": entry.name, **options, **small}]
    return [head for number, head in enumerate(found) if head not in found[:number]]


def settings(head: dict[str, Any], **others: Any) -> dict[str, Any]:
    picture = {"type": "nature_cnn"}
    embedder = {"speed": {"type": "mlp", "hidden": [8]}, "picture": picture}
    network = {"embedder": embedder, "heads": {"q": head}}
    exploration = "greedy" if head.get("noisy") else others.pop("exploration", "epsilon_greedy")
    return {"type": "dqn", "network": network, "exploration": exploration, **others}


def name(head: dict[str, Any]) -> str:
    return "+".join([head["type"], *(key for key in head if key != "type")])


def pairs() -> list[Any]:
    """Every head with every rule; an ensemble has no policy for Munchausen's."""
    rules: list[dict[str, Any]] = [{}, {"munchausen": {}}, {"advantage": {}, "monte_carlo": {}}]
    return [
        pytest.param(head, rule, id=f"{name(head)}-{'+'.join(rule) or 'plain'}")
        for head in heads()
        for rule in rules
        if not (head["type"] == "ensemble_q" and "munchausen" in rule)
    ]


@pytest.mark.parametrize(("head", "rule"), pairs())
def test_everything_goes_together(head: dict[str, Any], rule: dict[str, Any]) -> None:
    """With prioritized three-step replay, a Dict with a picture, and masked actions."""
    loop = small_loop(settings(head, **rule), Picky, n_step=3, sampler="prioritized")
    before = weights(loop.agent.policy)
    log = loop.train(64)
    assert log.metrics
    told = [value for metrics in log.metrics for value in metrics.values()]
    assert all(torch.isfinite(value).all() for value in told)
    learned = {
        key for key, value in weights(loop.agent.policy).items() if not value.equal(before[key])
    }
    assert learned


@pytest.mark.parametrize("agent", [a for a in agents() if "discrete" in served(a)])
def test_no_agent_takes_what_is_not_allowed(agent: str) -> None:
    loop = small_loop(agent, Picky)  # which fails if one does
    loop.train(160)
    loop.actor.ctx.explore = False
    loop.actor.collect()


@pytest.mark.parametrize("agent", [a for a in agents() if "discrete" in served(a)])
def test_no_agent_takes_what_is_not_allowed_in_many_steps(agent: str) -> None:
    loop = small_loop(small_agent(agent), Blindfolded)
    loop.train(64)
    rows, generator = 20_000, torch.Generator().manual_seed(0)
    state = loop.agent.initial_state(rows)
    for number in range(10):
        allowed = torch.rand(rows, 4, generator=generator) < 0.4
        speed = torch.randn(rows, 2, generator=generator)
        ctx = Context(number, generator, torch.arange(rows), explore=number % 5 > 0)
        with torch.no_grad():
            obs = {"speed": speed, "action_mask": allowed.to(torch.int8)}
            chosen = loop.agent.act(obs, state, ctx)
        state, taken = chosen.state, allowed.gather(1, chosen.action[:, None])[:, 0]
        assert (taken | ~allowed.any(1)).all()  # where nothing is allowed, anything is


def explorations() -> list[tuple[str, str]]:
    found = []
    for entry in entries("exploration"):
        try:
            built = build_part("exploration", entry.name, spec=SPEC).value
        except SettingError:  # for other action spaces
            continue
        wanted = [k for k in ("values", "ensemble_values", "distribution") if k in built.accepts()]
        found += [(entry.name, kind) for kind in wanted]
    return found


@pytest.mark.parametrize(("exploration", "kind"), explorations())
def test_no_exploration_takes_what_is_not_allowed_in_a_million_steps(
    exploration: str, kind: str
) -> None:
    part = {"values": "q", "ensemble_values": "ensemble_q", "distribution": "categorical"}[kind]
    head = build_part("head", part, features=6, spec=SPEC).value
    generator = torch.Generator().manual_seed(0)
    rows, rounds = 10_000, 100
    chosen = build_part("exploration", exploration, spec=SPEC).value
    ctx = Context(0, generator, torch.arange(rows), num_envs=rows)
    for step in range(rounds):
        ctx.step = step * 500  # schedules go their whole way
        ctx.explore = step % 10 != 9
        allowed = torch.rand(rows, 4, generator=generator) < 0.4
        allowed[torch.arange(rows), torch.randint(4, (rows,), generator=generator)] = True
        with torch.inference_mode():
            output = head(torch.randn(rows, 6, generator=generator)).masked(allowed)
            action = chosen(output, ctx)
        assert allowed.gather(1, action.unsqueeze(1)).all()


@pytest.mark.parametrize("head", heads(), ids=name)
def test_targets_ignore_what_is_not_allowed(head: dict[str, Any]) -> None:
    """Where one action alone is allowed next, nothing but its value can be bootstrapped from."""
    loop = small_loop(settings(head), Picky)
    batch = loop.batch()
    only = torch.zeros_like(batch.next_obs["action_mask"])
    only[:, 2] = 1
    batch.next_obs = {**batch.next_obs, "action_mask": only}
    for network in (loop.agent.online, loop.agent.target):
        later = network(batch.next_obs).q  # type: ignore[operator]
        assert (later.best() == 2).all()
        assert later.mean.isfinite().sum() == len(only)
    assert torch.isfinite(loop.agent.temporal_difference(batch).value).all()  # type: ignore[operator]
