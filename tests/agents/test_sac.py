"""Soft actor-critic: critics, actor and temperature by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.agents.sac import SAC
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.optimizers.adam import Adam
from coach.optimizers.sgd import SGD
from gymnasium import spaces

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Box(-2, 4, (2,)))
ROWS = 16


def sac(**settings: Any) -> SAC:
    torch.manual_seed(0)
    small = {
        "actor": {
            "embedder": {"type": "mlp", "hidden": [8]},
            "heads": {"policy": "squashed_gaussian"},
        },
        "critic": {
            "embedder": {"type": "mlp", "hidden": []},
            "heads": {"q": {"type": "continuous_q", "hidden": [8]}},
        },
    }
    agent: SAC = build_part("agent", {"type": "sac", **small, **settings}, "agent", spec=SPEC).value
    return agent


def transitions() -> Batch:
    rng = torch.Generator().manual_seed(0)
    return Batch(
        obs=torch.rand(ROWS, 3, generator=rng),
        action=torch.rand(ROWS, 2, generator=rng),
        reward=torch.rand(ROWS, generator=rng),
        discount=torch.tensor([0.9, 0.0] * (ROWS // 2)),
        next_obs=torch.rand(ROWS, 3, generator=rng),
        boundary=torch.tensor([False, True] * (ROWS // 2)),
    )


def test_both_critics_are_drawn_to_the_smaller_target() -> None:
    agent, batch = sac(temperature=0.3), transitions()
    with torch.no_grad():  # targets unlike the critics
        agent.rng.manual_seed(8)
        for parameter in agent.target.parameters():
            parameter.normal_(generator=agent.rng)
        agent.rng.manual_seed(5)
        policy = agent.actor(batch.next_obs).policy
        action, log_prob = policy.sample_with_log_prob(agent.rng)
        one, two = agent.target(batch.next_obs).q(action)
        value = torch.minimum(one, two) - 0.3 * log_prob
        target = batch.reward + batch.discount * value
        assert (one < two).any()
        assert (two < one).any()
    agent.rng.manual_seed(5)
    loss = agent.soft_bellman(batch)
    first, second = agent.critic(batch.obs).q(batch.action)
    wanted = 0.5 * (first - target).square() + 0.5 * (second - target).square()
    torch.testing.assert_close(loss.value, wanted)
    assert loss.priority is not None
    torch.testing.assert_close(loss.priority, ((first - target).abs() + (second - target).abs()).detach() / 2)  # fmt: skip


def test_the_actor_weighs_value_against_entropy() -> None:
    agent, batch = sac(temperature=0.3, learn_temperature=False), transitions()
    agent.rng.manual_seed(5)
    loss = agent.improve_policy(batch).value
    agent.rng.manual_seed(5)
    action, log_prob = agent.actor(batch.obs).policy.sample_with_log_prob(agent.rng)
    q = agent.critic(batch.obs).q(action).amin(0)
    wanted = 0.3 * log_prob - q
    parameters = list(agent.actor.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(loss.sum(), parameters), torch.autograd.grad(wanted.sum(), parameters)
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("surplus", "grows"), [(-5.0, False), (5.0, True)])
def test_the_temperature_moves_towards_the_target_entropy(surplus: float, grows: bool) -> None:
    """Where the policy has less entropy than the target, its weight grows."""
    agent, batch = sac(), transitions()
    with torch.no_grad():
        agent.rng.manual_seed(0)
        _, log_prob = agent.actor(batch.obs).policy.sample_with_log_prob(agent.rng)
    agent.target_entropy = float(-log_prob.mean()) + surplus
    agent.rng.manual_seed(0)
    (gradient,) = torch.autograd.grad(agent.improve_policy(batch).value.mean(), [agent.temperature])
    assert float(gradient) == pytest.approx(-surplus, abs=1e-4)
    learner = Learner(agent, SGD(lr=0.1))
    before = agent.temperature.item()
    learner.step(batch, 0)
    assert (agent.temperature.item() > before) is grows


def test_a_fixed_temperature_stays_and_needs_no_optimizer() -> None:
    agent = sac(temperature=0.25, learn_temperature=False)
    learner = Learner(agent, Adam(lr=0.1))
    assert set(learner.learning_rates(0)) == {"critic", "actor"}
    for _ in range(3):
        learner.step(transitions(), 0)
    assert agent.temperature.exp().item() == pytest.approx(0.25)


def test_the_target_follows_the_critics_slowly() -> None:
    agent = sac(target_tau=0.25)
    learner = Learner(agent, Adam(lr=0.1))
    before = [p.clone() for p in agent.target.parameters()]
    learner.step(transitions(), 0)
    for old, now, online in zip(before, agent.target.parameters(), agent.critic.parameters()):
        torch.testing.assert_close(now, old + 0.25 * (online.detach() - old))


def test_defaults_are_those_of_the_paper() -> None:
    agent = SAC(SPEC)
    assert agent.target_entropy == -2.0
    assert agent.temperature.exp().item() == 1.0
    assert agent.critic(torch.zeros(1, 3)).q(torch.zeros(1, 2)).shape == (2, 1)
    assert agent.policy is agent.actor


def test_actions_fill_minus_one_to_one_whatever_the_bounds() -> None:
    agent = sac()
    ctx = Context(0, torch.Generator().manual_seed(0), torch.arange(2_000))
    with torch.no_grad():
        action = agent.act(torch.zeros(2_000, 3), None, ctx).action
    assert (action.abs() <= 1).all()
    assert action.amin() < -0.8
    assert action.amax() > 0.8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0}, ["agent.temperature"]),
        ({"critic": {"heads": {"q": "value"}}}, ["agent.critic.heads.q", "action_values"]),
        ({"critic": {"heads": {"value": "value"}}}, ["called 'q'"]),
        ({"exploration": "boltzmann"}, ["'boltzmann' reads values"]),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        sac(**settings)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (spaces.Discrete(3), ["agent sac serves Box actions", "Choose agent dqn or ppo"]),
        (spaces.Box(-float("inf"), 1, (2,)), ["agent sac needs bounded actions", "ppo"]),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused(action: spaces.Space[Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        SAC(Spec(SPEC.observation, action))
    for word in words:
        assert word in str(raised.value)
