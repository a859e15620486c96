"""What an agent must leave alone: other modules, random streams, statistics, its copies."""

from __future__ import annotations

import copy
import json
import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from coach.core.agent import Loss
from coach.core.batch import leaves
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import MEASURE_EVERY
from coach.core.registry import find
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.environments.serial import SerialEnvs
from coach.runners.evaluation import evaluate
from gymnasium import spaces
from small_loop import (
    Loop,
    agents,
    equal,
    global_streams_untouched,
    memories_of,
    served,
    small_loop,
    weights,
)
from worlds import ACTIONS, OBSERVATIONS, World, ours

#: A picture and numbers, nested: every kind of embedder in one network.
NESTED = spaces.Dict(
    {
        "sensors": spaces.Dict(
            {"camera": spaces.Box(0, 255, (36, 36, 1), np.uint8), "speed": spaces.Box(-1, 1, (2,))}
        ),
        "task": spaces.Discrete(3),
    }
)
SPACES = {**OBSERVATIONS, "nested": NESTED}
SERVED = [(agent, action) for agent in agents() for action in served(agent)]
REFUSED = [(agent, action) for agent in agents() for action in ACTIONS if action not in served(agent)]  # fmt: skip


def loop_of(agent: Any, action: str, observation: str = "vector", **options: Any) -> Loop:
    here = copy.deepcopy(SPACES[observation]), copy.deepcopy(ACTIONS[action])
    return small_loop(agent, lambda: World(*here, length=4), **options)


def act(loop: Loop, obs: Any, seed: int = 0, explore: bool = True) -> torch.Tensor:
    count = len(leaves(obs)[0][1])
    ctx = Context(50, torch.Generator().manual_seed(seed), torch.arange(count), explore)
    with torch.inference_mode():
        return loop.agent.act(obs, loop.agent.initial_state(count), ctx).action


@pytest.mark.parametrize(("agent", "action"), REFUSED)
def test_a_refusal_says_who_refuses_what_and_a_way_out(agent: str, action: str) -> None:
    spec = Spec(OBSERVATIONS["vector"], ACTIONS[action])
    with pytest.raises(SettingError) as raised:
        build_part("agent", agent, "agent", spec=spec)
    if not ours("agent", agent):
        return  # that it refuses with an error of its own is enough
    assert re.search(rf"(agent {agent}|head \w+) serves ", str(raised.value))
    assert str(spec.action) in str(raised.value)
    assert "coach list agents" in raised.value.remedy


@pytest.mark.parametrize("observation", SPACES)
@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_every_pair_of_spaces_trains_in_the_real_loop(
    agent: str, action: str, observation: str
) -> None:
    if not ours("agent", agent):
        try:
            build_part("agent", agent, spec=Spec(SPACES[observation], ACTIONS[action]))
        except SettingError as refusal:
            pytest.skip(f"{agent} declines: {refusal.problem}")
    loop = loop_of(agent, action, observation)  # its environments check every action
    before = weights(loop.agent.policy)
    log = loop.train(48)
    assert loop.learner.version == len(log.metrics) >= 3
    for number, metrics in enumerate(log.metrics):
        assert bool(metrics) is (number % MEASURE_EVERY == 0)
        for name, metric in metrics.items():
            assert metric.numel() == 1, name
            assert not metric.requires_grad, name
            assert torch.isfinite(metric), name
    assert not equal(before, weights(loop.agent.policy))


@pytest.mark.parametrize("agent", agents())
def test_every_fitting_memory_will_do(agent: str) -> None:
    for memory in memories_of(find("agent", agent)):
        assert loop_of(agent, served(agent)[0], memory=memory).train().metrics


@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_each_objective_moves_all_that_it_names_and_nothing_else(agent: str, action: str) -> None:
    loop = loop_of(agent, action)
    batch = loop.batch()
    loop.agent.after_update = lambda: None  # type: ignore[method-assign]
    for goal in loop.agent.objectives():
        before = weights(loop.agent)
        loop.learner.objectives = [goal]
        loop.learner.version = 0
        loop.learner.step(batch, 0)
        after = loop.agent.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name.partition(".")[0] for name in moved} == set(goal.minimises)
        assert all(p.grad is None for p in loop.agent.parameters())


@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_objectives_change_nothing_and_give_a_loss_per_row(agent: str, action: str) -> None:
    loop = loop_of(agent, action)
    batch = loop.batch()
    known = batch.map(torch.clone)
    before = weights(loop.agent)
    for goal in loop.agent.objectives():
        start = loop.agent.rng.get_state()
        values = []
        for _ in range(2):
            loop.agent.rng.set_state(start)
            with global_streams_untouched():
                loss: Loss = getattr(loop.agent, goal.name)(batch)
            assert loss.value.shape == (len(batch),)
            assert loss.value.requires_grad
            assert torch.isfinite(loss.value).all()
            if loss.priority is not None:
                assert loss.priority.shape == (len(batch),)
                assert not loss.priority.requires_grad
                assert (loss.priority >= 0).all()
            values.append(loss.value.detach())
        assert torch.equal(*values)
    assert equal(before, weights(loop.agent))
    for name in ("obs", "action", "reward", "discount", "next_obs", "boundary", "extras"):
        for (_, mine), (_, theirs) in zip(
            leaves(getattr(batch, name)), leaves(getattr(known, name))
        ):
            assert torch.equal(mine, theirs), f"an objective changed batch.{name}"


@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_training_draws_from_no_global_stream(agent: str, action: str) -> None:
    loop = loop_of(agent, action)
    with global_streams_untouched():
        loop.train()


@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_evaluation_repeats_itself_and_leaves_no_trace(agent: str, action: str) -> None:
    loop = loop_of(agent, action)
    loop.train(24)
    saved = copy.deepcopy(loop.learner.state_dict())
    acting = loop.actor.ctx.rng.get_state()

    def played() -> list[Any]:
        here = copy.deepcopy(SPACES["vector"]), copy.deepcopy(ACTIONS[action])
        with global_streams_untouched():
            envs = partial(SerialEnvs, lambda: World(*here))
            return evaluate(loop.agent, envs, episodes=3, seed=5)

    told: list[bool] = []
    inner = loop.agent.act

    def watched(obs: Any, state: Any, ctx: Context) -> Any:
        told.append(ctx.explore)
        return inner(obs, state, ctx)

    loop.agent.act = watched  # type: ignore[method-assign]
    assert played() == played()
    assert told
    assert not any(told), "evaluation does not explore"
    assert equal(saved, loop.learner.state_dict())
    assert torch.equal(acting, loop.actor.ctx.rng.get_state())
    assert loop.agent.training
    # Without exploring, the random stream has no say.
    obs = torch.rand(32, 3)
    assert torch.equal(act(loop, obs, 1, explore=False), act(loop, obs, 2, explore=False))


@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_a_copy_acts_alike_and_stands_on_its_own(agent: str, action: str) -> None:
    loop = loop_of(agent, action)
    loop.train(24)
    twin = copy.copy(loop)
    twin.agent = copy.deepcopy(loop.agent)
    obs = torch.rand(16, 3)
    assert torch.equal(act(loop, obs), act(twin, obs))
    kept = weights(twin.agent)
    loop.train(24)
    assert equal(kept, weights(twin.agent))
    assert not equal(kept, weights(loop.agent))


@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_the_policys_state_is_all_that_actors_need(agent: str, action: str) -> None:
    first, second = loop_of(agent, action), loop_of(agent, action, seed=1)
    first.train()
    obs = torch.rand(64, 3)
    second.agent.policy.load_state_dict(first.agent.policy.state_dict())
    for explore in (False, True):
        assert torch.equal(act(first, obs, 3, explore), act(second, obs, 3, explore))


@pytest.mark.parametrize(("agent", "action"), SERVED)
def test_a_learner_restored_from_its_state_makes_the_same_next_updates(
    agent: str, action: str
) -> None:
    first, second = loop_of(agent, action), loop_of(agent, action, seed=1)
    first.train()
    state = first.learner.state_dict()
    assert all(
        isinstance(value, torch.Tensor) or json.loads(json.dumps(value)) == value
        for value in state.values()
    )
    second.learner.load_state_dict(copy.deepcopy(state))
    for _ in range(2):
        batch = first.batch()
        one, two = first.learner.step(batch, 9), second.learner.step(batch, 9)
        assert (one.priority is None) == (two.priority is None)
        if one.priority is not None and two.priority is not None:
            assert torch.equal(one.priority, two.priority)
        assert equal(first.learner.state_dict(), second.learner.state_dict())
