"""Deep Q-learning's targets by hand, and what its settings change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.agents.dqn import DQN
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.optimizers.sgd import SGD
from gymnasium import spaces

SPEC = Spec(spaces.Discrete(4), spaces.Discrete(2))
#: Q of every state, online and target; they disagree about the best action of states 1 and 2.
ONLINE = torch.tensor([[1.0, 2.0], [5.0, 3.0], [0.0, 4.0], [7.0, 7.5]])
TARGET = torch.tensor([[0.5, 0.5], [2.0, 6.0], [8.0, 1.0], [9.0, 3.0]])


def table(values: torch.Tensor, network: Any) -> None:
    """Turn a linear network on one-hot states into a table."""
    with torch.no_grad():
        network.heads["q"].out.weight.copy_(values.t())
        network.heads["q"].out.bias.zero_()


def tabular(huber_delta: float = 0.0, **settings: Any) -> DQN:
    network = {
        "embedder": {"type": "mlp", "hidden": []},
        "heads": {"q": {"type": "q", "huber_delta": huber_delta}},
    }
    built = build_part("agent", {"type": "dqn", "network": network, **settings}, spec=SPEC)
    agent: DQN = built.value
    table(ONLINE, agent.online)
    table(TARGET, agent.target.network)
    return agent


def transitions() -> Batch:
    """State 0 to 1 (action 1), 1 to 2 (action 0), 2 to 3 (action 1), which terminates."""
    return Batch(
        obs=torch.tensor([0, 1, 2]),
        action=torch.tensor([1, 0, 1]),
        reward=torch.tensor([1.0, -1.0, 0.5]),
        discount=torch.tensor([0.9, 0.5, 0.0]),
        next_obs=torch.tensor([1, 2, 3]),
        boundary=torch.tensor([False, True, True]),
    )


@pytest.mark.parametrize(
    ("double", "targets"),
    [
        # The online network prefers action 0 in state 1 and action 1 in state 2.
        (True, [1 + 0.9 * 2.0, -1 + 0.5 * 1.0, 0.5]),
        (False, [1 + 0.9 * 6.0, -1 + 0.5 * 8.0, 0.5]),
    ],
)
def test_the_target_network_values_what_the_chooser_chooses(
    double: bool, targets: list[float]
) -> None:
    loss = tabular(double=double).temporal_difference(transitions())
    errors = [2.0 - targets[0], 5.0 - targets[1], 4.0 - targets[2]]
    torch.testing.assert_close(loss.value, torch.tensor([0.5 * e * e for e in errors]))
    assert loss.priority is not None
    torch.testing.assert_close(loss.priority, torch.tensor(errors).abs())


def test_the_loss_is_the_heads_own() -> None:
    squared = tabular(huber_delta=0.0).temporal_difference(transitions())
    huber = tabular(huber_delta=1.0).temporal_difference(transitions())
    assert squared.priority is not None
    error = squared.priority
    wanted = torch.where(error < 1, 0.5 * error.square(), error - 0.5)
    torch.testing.assert_close(huber.value, wanted)


def test_only_the_chosen_actions_value_is_pulled() -> None:
    agent = tabular()
    weight = agent.online.heads["q"].out.weight
    (gradient,) = torch.autograd.grad(
        agent.temporal_difference(transitions()).value.sum(), [weight]
    )
    moved = gradient.t() != 0
    assert moved.tolist() == [[False, True], [True, False], [False, True], [False, False]]


@pytest.mark.parametrize(("settings", "follows"), [({"target_every": 3}, [0, 0, 1, 1, 1, 2]), ({"target_every": 1, "target_tau": 0.5}, [1, 2, 3, 4, 5, 6])])  # fmt: skip
def test_the_target_follows_in_its_cadence(settings: Any, follows: list[int]) -> None:
    agent = tabular(**settings)
    learner = Learner(agent, SGD(lr=0.1))
    changes, seen = 0, []
    for _ in range(6):
        before = agent.target.network.heads["q"].out.weight.clone()  # type: ignore[union-attr, operator]
        learner.step(transitions(), 0)
        changes += not torch.equal(before, agent.target.network.heads["q"].out.weight)  # type: ignore[union-attr, operator]
        seen.append(changes)
    assert seen == follows


def test_acts_on_the_online_network() -> None:
    agent = tabular()
    ctx = Context(0, torch.Generator(), torch.arange(4), explore=False)
    assert agent.act(torch.arange(4), None, ctx).action.tolist() == [1, 0, 1, 1]
    assert agent.policy is agent.online
    assert agent.monitor(5_000) == {"epsilon": pytest.approx(0.525)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": {"heads": {"value": "value"}}}, ["'q'", "value"]),
        ({"network": {"heads": {"q": "value"}}}, ["heads.q", "provides values"]),
        ({"exploration": "sample"}, ["agent.exploration", "'sample' reads distribution"]),
        ({"exploration": {"type": "uniform", "then": "sample"}}, ["reads distribution"]),
        ({"target_every": 0}, ["agent.target_every"]),
        ({"target_tau": 0}, ["agent.target_tau"]),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", {"type": "dqn", **settings}, "agent", spec=SPEC)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("action", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2)], ids=str)  # fmt: skip
def test_serves_discrete_actions_alone(action: spaces.Space[Any]) -> None:
    with pytest.raises(
        SettingError, match=r"agent dqn serves Discrete actions(.|\n)*Choose agent .*ppo"
    ):
        DQN(Spec(SPEC.observation, action))
