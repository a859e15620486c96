"""What every registered agent has to do, on every space that it serves.

Run against agents of your own: pytest tests/contract --plugin path/to/agent.py
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from coach.core.agent import Agent, Loss
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.registry import entries, find
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.environments.serial import SerialEnvs
from coach.memories.replay import Replay
from coach.memories.rollout import Rollout
from coach.optimizers.adam import Adam
from coach.runners.actor import Actor
from worlds import ACTIONS, OBSERVATIONS, World, ours

#: All but those that need an entry of the observation which these worlds do not show.
AGENTS = [e.name for e in entries("agent") if not find("agent", e.name).future_key]  # type: ignore[attr-defined]


def make(name: str, observation: str, action: str) -> Agent:
    spec = Spec(OBSERVATIONS[observation], ACTIONS[action])
    torch.manual_seed(0)
    agent: Agent = build_part("agent", name, "agent", spec=spec).value
    return agent


def served(name: str, observation: str = "vector") -> list[str]:
    actions = []
    for action in ACTIONS:
        try:
            make(name, observation, action)
        except SettingError:
            continue
        actions.append(action)
    return actions


def cases(name: str) -> list[tuple[str, str, str]]:
    """Pairs of spaces that an agent serves; agents of ours serve every observation."""
    if ours("agent", name):
        return [
            (name, observation, action)
            for action in served(name)
            for observation in (OBSERVATIONS if action in ("discrete", "box") else ["vector"])
        ]
    return [(name, obs, action) for obs in OBSERVATIONS for action in served(name, obs)]


CASES = [case for name in AGENTS for case in cases(name)]
FIRST = [
    (name, next(action for agent, obs, action in CASES if (agent, obs) == (name, "vector")))
    for name in AGENTS
    if (name, "vector") in {case[:2] for case in CASES}
]


class Rig:
    """An agent with everything around it that training needs."""

    def __init__(self, name: str, observation: str, action: str, **world: Any) -> None:
        self.agent = make(name, observation, action)
        spaces = OBSERVATIONS[observation], ACTIONS[action]
        envs = SerialEnvs(lambda: World(*copy.deepcopy(spaces), **world), 2, seed=3)
        spec = envs.spec
        self.memory: Memory = (
            Replay(spec, 2, 0, capacity=200, batch_size=8, warmup=8, updates_per_step=0.25)
            if "replay" in self.agent.learns_from
            else Rollout(spec, 2, 0, horizon=4, epochs=2, batch_size=4)
        )
        self.learner = Learner(self.agent, Adam(lr=1e-3), seed=1)
        self.actor = Actor(self.agent, envs, 4, seed=2)

    def batches(self, fragments: int = 6) -> list[Batch]:
        found: list[Batch] = []
        for _ in range(fragments):
            self.memory.write(self.actor.collect())
            found += list(self.memory.batches(self.learner.prepare))
        return found


@pytest.mark.parametrize("name", AGENTS)
def test_serves_some_actions_and_refuses_others_with_a_remedy(name: str) -> None:
    assert any(agent == name for agent, *_ in CASES), "it serves none of the spaces"
    words = r"serves .* but the environment has" if ours("agent", name) else r"\w"
    for action in set(ACTIONS) - set(served(name)):
        with pytest.raises(SettingError, match=words):
            make(name, "vector", action)


@pytest.mark.parametrize(("name", "observation", "action"), CASES)
def test_acts_and_learns(name: str, observation: str, action: str) -> None:
    rig = Rig(name, observation, action)  # its environments check every action
    seen = 0
    for _ in range(6):
        fragment = rig.actor.collect()
        rig.memory.write(fragment)
        for batch in rig.memory.batches(rig.learner.prepare):
            update = rig.learner.step(batch, 0)
            rig.memory.feedback(batch, update.priority)
            seen += 1
            assert all(torch.isfinite(metric).all() for metric in update.metrics.values())
            if update.priority is not None:
                assert update.priority.shape == (len(batch),)
                assert (update.priority >= 0).all()
                assert not update.priority.requires_grad
        rig.agent.observe(fragment)
    assert seen
    assert all(torch.isfinite(p).all() for p in rig.agent.parameters())


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_objectives_give_a_loss_per_row_and_are_pure(name: str, action: str) -> None:
    rig = Rig(name, "vector", action)
    batch = rig.batches()[-1]
    for goal in rig.agent.objectives():
        before = rig.agent.rng.get_state()
        first: Loss = getattr(rig.agent, goal.name)(batch)
        rig.agent.rng.set_state(before)
        second: Loss = getattr(rig.agent, goal.name)(batch)
        assert first.value.shape == (len(batch),)
        assert torch.equal(first.value, second.value)
        assert goal.every >= 1


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_only_what_an_objective_names_is_moved(name: str, action: str) -> None:
    rig = Rig(name, "vector", action)
    (batch, *_) = rig.batches()
    named = {n for goal in rig.agent.objectives() for n in goal.minimises}
    before = {k: v.clone() for k, v in rig.agent.named_parameters()}
    rig.learner.agent.after_update = lambda: None  # type: ignore[method-assign]
    rig.learner.step(batch, 0)
    moved = {k for k, v in rig.agent.named_parameters() if not torch.equal(v, before[k])}
    assert moved
    assert {k.split(".")[0] for k in moved} <= named


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_evaluation_is_deterministic_and_draws_nothing(name: str, action: str) -> None:
    rig = Rig(name, "vector", action)
    obs = torch.rand(5, 3)
    rng = torch.Generator().manual_seed(0)
    context = Context(0, rng, torch.arange(5), explore=False)
    learning, before = rig.agent.rng.get_state(), rng.get_state()
    with torch.inference_mode():
        first = rig.agent.act(obs, rig.agent.initial_state(5), context).action
        second = rig.agent.act(obs, rig.agent.initial_state(5), context).action
    assert torch.equal(first, second)
    assert torch.equal(rng.get_state(), before)
    assert torch.equal(rig.agent.rng.get_state(), learning)


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_acting_is_a_function_of_the_stream(name: str, action: str) -> None:
    agent = make(name, "vector", action)

    def drawn(seed: int) -> Any:
        rng = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            return agent.act(
                torch.zeros(64, 3), agent.initial_state(64), Context(0, rng, torch.arange(64))
            ).action

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_the_policy_is_all_that_acting_needs(name: str, action: str) -> None:
    rig = Rig(name, "vector", action)
    for batch in rig.batches():
        rig.learner.step(batch, 0)
    twin = make(name, "vector", action)
    twin.policy.load_state_dict(rig.agent.policy.state_dict())
    obs = torch.rand(16, 3)
    actions = []
    for agent in (rig.agent, twin):
        context = Context(0, torch.Generator().manual_seed(0), torch.arange(16))
        with torch.inference_mode():
            actions.append(agent.act(obs, agent.initial_state(16), context).action)
    assert torch.equal(*actions)


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_saved_state_continues_identically(name: str, action: str) -> None:
    first, second = Rig(name, "vector", action), Rig(name, "vector", action)
    (batch, *others) = first.batches()
    for other in others:
        first.learner.step(other, 0)
    saved = {key: copy.deepcopy(value) for key, value in first.learner.state_dict().items()}
    second.learner.load_state_dict(saved)
    for rig in (first, second):
        rig.learner.step(batch, 0)
    for key, value in first.learner.state_dict().items():
        other = second.learner.state_dict()[key]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


@pytest.mark.parametrize(("name", "action"), FIRST)
@pytest.mark.parametrize("terminates", [False, True])
def test_time_limits_bootstrap_and_terminal_states_do_not(
    name: str, action: str, terminates: bool
) -> None:
    """What the objectives read at an episode's end tells a time limit from a terminal state."""
    rig = Rig(name, "vector", action, length=3, terminates=terminates)
    ends = [batch[batch.boundary] for batch in rig.batches() if batch.boundary.any()]
    assert ends
    for batch in ends:
        assert (batch.discount == (0.0 if terminates else 0.99)).all()


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_the_value_of_a_time_limit_reaches_the_loss(name: str, action: str) -> None:
    """The same batch with its ends taken for terminal states gives another loss."""
    rig = Rig(name, "vector", action, length=2)
    with torch.no_grad():  # fresh networks are close to 0, which would hide the difference
        for parameter in rig.agent.parameters():
            parameter.add_(0.1)
    fragment = rig.actor.collect()
    assert fragment.boundary.any()

    def losses(batch: Batch) -> list[torch.Tensor]:
        rig.agent.rng.manual_seed(0)
        flat = rig.learner.prepare(batch.map(torch.clone)).flatten()
        return [getattr(rig.agent, goal.name)(flat).value for goal in rig.agent.objectives()]

    right = losses(fragment)
    wrong_end = copy.copy(fragment)
    wrong_end.discount = fragment.discount * ~fragment.boundary
    wrong = losses(wrong_end)
    assert any(not torch.allclose(a, b) for a, b in zip(right, wrong))


@pytest.mark.parametrize(("name", "action"), FIRST)
def test_rows_do_not_see_each_other_while_acting(name: str, action: str) -> None:
    agent = make(name, "vector", action)
    obs = torch.rand(6, 3)

    def act(obs: torch.Tensor) -> torch.Tensor:
        rng = torch.Generator().manual_seed(0)
        context = Context(0, rng, torch.arange(len(obs)), explore=False)
        with torch.inference_mode():
            return agent.act(obs, agent.initial_state(len(obs)), context).action

    torch.testing.assert_close(act(obs)[:2], act(obs[:2]))


@pytest.mark.parametrize("name", AGENTS)
def test_rollouts_and_replays_are_told_apart(name: str) -> None:
    assert set(find("agent", name).learns_from) <= {"replay", "rollout"}  # type: ignore[attr-defined]
