"""Munchausen, advantage learning and mixed Monte Carlo returns: by hand, and in combination."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from coach.agents.dqn import DQN
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from gymnasium import spaces

SPEC = Spec(spaces.Discrete(3), spaces.Discrete(2))
ONLINE = np.array([[1.0, 2.0], [5.0, 3.0], [0.0, 4.0]])
TARGET = np.array([[0.5, 0.25], [2.0, 6.0], [8.0, 1.0]])
REWARD, GAMMA = np.array([1.0, -1.0, 0.5]), np.array([0.9, 0.9, 0.0])
STATE, ACTION, NEXT = np.array([0, 1, 2]), np.array([1, 0, 1]), np.array([1, 2, 0])
ROW = np.arange(3)


def agent_of(**settings: Any) -> DQN:
    network = {
        "embedder": {"type": "mlp", "hidden": []},
        "heads": {"q": {"type": "q", "huber_delta": 0.0}},
    }
    built = build_part("agent", {"type": "dqn", "network": network, **settings}, spec=SPEC)
    agent: DQN = built.value
    for network_, table in ((agent.online, ONLINE), (agent.target.network, TARGET)):
        with torch.no_grad():
            out: Any = network_.heads["q"].out  # type: ignore[union-attr, index]
            out.weight.copy_(torch.from_numpy(table).t())
            out.bias.zero_()
    return agent


def batch(**extras: Any) -> Batch:
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in extras.items()}
    return Batch(
        obs=torch.from_numpy(STATE),
        action=torch.from_numpy(ACTION),
        reward=torch.from_numpy(REWARD).float(),
        discount=torch.from_numpy(GAMMA).float(),
        next_obs=torch.from_numpy(NEXT),
        boundary=torch.zeros(3, dtype=torch.bool),
        extras={k: t.float() if t.is_floating_point() else t for k, t in tensors.items()},
    )


def check(agent: DQN, target: np.ndarray, transitions: Batch | None = None) -> None:
    loss = agent.temporal_difference(transitions or batch())
    error = ONLINE[STATE, ACTION] - target
    np.testing.assert_allclose(loss.value.detach(), 0.5 * error**2, rtol=1e-4)
    assert loss.priority is not None
    np.testing.assert_allclose(loss.priority, np.abs(error), rtol=1e-4)


def double() -> np.ndarray:
    return REWARD + GAMMA * TARGET[NEXT, ONLINE[NEXT].argmax(-1)]


def log_softmax(x: np.ndarray) -> np.ndarray:
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def test_munchausen() -> None:
    alpha, tau, lowest = 0.7, 0.5, -1.0
    now, later = log_softmax(TARGET[STATE] / tau), log_softmax(TARGET[NEXT] / tau)
    soft = (np.exp(later) * (TARGET[NEXT] - tau * later)).sum(-1)
    bonus = alpha * np.clip(tau * now[ROW, ACTION], lowest, 0)
    assert (bonus == alpha * lowest).any()  # the bound is reached, and not by all
    assert (bonus > alpha * lowest).any()
    settings = {"alpha": alpha, "temperature": tau, "lowest": lowest}
    check(agent_of(munchausen=settings), REWARD + bonus + GAMMA * soft)


def gap() -> np.ndarray:
    return np.asarray(TARGET[STATE].max(-1) - TARGET[STATE, ACTION])


def test_advantage_learning() -> None:
    check(agent_of(advantage={"alpha": 0.5}), double() - 0.5 * gap())


@pytest.mark.parametrize("double_", [False, True])
@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_persistent_advantage_learning_takes_the_larger_target(seed: int, double_: bool) -> None:
    """Equation 9, written out, with a single estimator and with two."""
    rng = np.random.default_rng(seed)
    states, actions, rows = 6, 4, 50
    online, target = rng.normal(size=(2, states, actions))
    state, then = rng.integers(states, size=(2, rows))
    action, reward = rng.integers(actions, size=rows), rng.normal(size=rows)
    discount = 0.95 * (rng.random(rows) < 0.8)
    chooser = online if double_ else target
    once, again = reward.copy(), reward.copy()
    for row in range(rows):
        best = chooser[then[row]].argmax()
        gap = target[state[row]].max() - target[state[row], action[row]]
        once[row] += discount[row] * target[then[row], best] - 0.7 * gap
        again[row] += discount[row] * target[then[row], action[row]]
    assert (once > again).any()
    assert (once < again).any()
    spec = Spec(spaces.Discrete(states), spaces.Discrete(actions))
    settings = {
        "type": "dqn",
        "double": double_,
        "advantage": {"alpha": 0.7, "persistent": True},
        "network": {
            "embedder": {"type": "mlp", "hidden": []},
            "heads": {"q": {"type": "q", "huber_delta": 0.0}},
        },
    }
    agent: DQN = build_part("agent", settings, spec=spec).value
    for network, table in ((agent.online, online), (agent.target.network, target)):
        with torch.no_grad():
            out: Any = network.heads["q"].out  # type: ignore[union-attr, index]
            out.weight.copy_(torch.from_numpy(table).t())
            out.bias.zero_()
    transitions = Batch(
        obs=torch.from_numpy(state),
        action=torch.from_numpy(action),
        reward=torch.from_numpy(reward).float(),
        discount=torch.from_numpy(discount).float(),
        next_obs=torch.from_numpy(then),
        boundary=torch.zeros(rows, dtype=torch.bool),
    )
    priority = agent.temporal_difference(transitions).priority
    assert priority is not None
    error = np.abs(np.maximum(once, again) - online[state, action])
    np.testing.assert_allclose(priority, error, rtol=1e-4, atol=1e-5)


def test_members_of_an_ensemble_have_targets_of_their_own() -> None:
    """Advantage learning and long returns, for each of two members as if it were alone."""
    head = {"type": "ensemble_q", "members": 2, "huber_delta": 0.0}
    settings = {
        "type": "dqn",
        "network": {"embedder": {"type": "mlp", "hidden": []}, "heads": {"q": head}},
        "exploration": "bootstrapped",
        "advantage": {"alpha": 0.5, "persistent": True},
        "monte_carlo": {"share": 0.25},
    }
    agent: DQN = build_part("agent", settings, spec=SPEC).value
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = batch(**{"return": REWARD, "return_discount": [0.5] * 3, "return_obs": [2, 0, 1]})
    loss = agent.temporal_difference(x)
    online, then = (agent.online(torch.from_numpy(s)).q.every.detach() for s in (STATE, NEXT))
    now, later, rest = (
        agent.target(torch.from_numpy(s)).q.every for s in (STATE, NEXT, np.array([2, 0, 1]))
    )
    error = torch.zeros(2, 3)
    for member in range(2):
        for row in range(3):
            taken = int(ACTION[row])
            best = then[member, row].argmax()
            gap = now[member, row].max() - now[member, row, taken]
            once = REWARD[row] + GAMMA[row] * later[member, row, best] - 0.5 * gap
            again = REWARD[row] + GAMMA[row] * later[member, row, taken]
            long = REWARD[row] + 0.5 * rest[member, row].max()
            wanted = 0.75 * torch.maximum(once, again) + 0.25 * long
            error[member, row] = online[member, row, taken] - wanted
    torch.testing.assert_close(loss.value.detach(), 0.5 * error.square().mean(0))


def test_persistence_ignores_what_is_not_allowed_next() -> None:
    observation = spaces.Dict({"x": spaces.Discrete(3), "action_mask": spaces.MultiBinary(2)})
    spec = Spec(observation, spaces.Discrete(2))
    advantage = {"alpha": 0.5, "persistent": True}
    agent: DQN = build_part("agent", {"type": "dqn", "advantage": advantage}, spec=spec).value
    x = batch()
    x.obs = {"x": x.obs, "action_mask": torch.ones(3, 2)}
    # What was done before is ruled out next, in the last row behind a terminal state.
    x.next_obs = {"x": x.next_obs, "action_mask": torch.tensor([[1, 0], [0, 1], [1, 0]])}
    loss = agent.temporal_difference(x)
    now, later = agent.target(x.obs).q.mean, agent.target(x.next_obs).q.mean
    gap = now.amax(-1) - now[ROW, ACTION]
    wanted = x.reward + x.discount * later.amax(-1) - 0.5 * gap
    wanted[2] = x.reward[2]  # eq. 9: the larger of r - gap and r
    taken = agent.online(x.obs).q.mean[ROW, ACTION]
    assert loss.priority is not None
    torch.testing.assert_close(loss.priority, (taken - wanted).abs().detach())


def test_mixed_monte_carlo() -> None:
    ahead = {"return": [3.0, 2.0, 0.5], "return_discount": [0.5, 0.0, 0.0], "return_obs": [2, 0, 0]}
    received = np.array([3.0, 2.0, 0.5]) + np.array([0.5, 0, 0]) * TARGET[[2, 0, 0]].max(-1)
    agent = agent_of(monte_carlo={"share": 0.25})
    assert agent.episode_returns
    check(agent, 0.75 * double() + 0.25 * received, batch(**ahead))


def test_rules_combine() -> None:
    ahead = {"return": [3.0, 2.0, 0.5], "return_discount": [0.0] * 3, "return_obs": [0, 0, 0]}
    agent = agent_of(advantage={"alpha": 0.5}, monte_carlo={"share": 0.25})
    wanted = 0.75 * (double() - 0.5 * gap()) + 0.25 * np.array([3.0, 2.0, 0.5])
    check(agent, wanted, batch(**ahead))


def test_a_distribution_is_moved_by_the_same_rules() -> None:
    """Of one atom's mass the mean moves as an expected value would."""
    head = {"type": "quantile_q", "quantiles": 4, "kappa": 0.0}
    network = {"embedder": {"type": "mlp", "hidden": []}, "heads": {"q": head}}
    settings = {"type": "dqn", "network": network, "munchausen": {}, "advantage": {"alpha": 0.5}}
    agent: DQN = build_part("agent", settings, spec=SPEC).value
    loss = agent.temporal_difference(batch())
    mean = agent.target(torch.from_numpy(STATE)).q.mean
    later = agent.target(torch.from_numpy(NEXT)).q.mean
    policy = (later / 0.03).softmax(-1)
    soft = (policy * later - 0.03 * torch.xlogy(policy, policy)).sum(-1)
    told = (mean / 0.03).log_softmax(-1)[ROW, ACTION]
    bonus = 0.9 * (0.03 * told).clamp(-1, 0)
    lost = 0.5 * (mean.amax(-1) - mean[ROW, ACTION])
    wanted = torch.from_numpy(REWARD) + bonus - lost + torch.from_numpy(GAMMA) * soft
    now = agent.online(torch.from_numpy(STATE)).q.mean[ROW, ACTION]
    assert loss.priority is not None
    torch.testing.assert_close(
        loss.priority.double(), (wanted - now).abs().detach(), rtol=1e-4, atol=1e-5
    )


def test_an_ensemble_has_no_policy_for_munchausen() -> None:
    network = {"heads": {"q": "ensemble_q"}}
    settings = {"type": "dqn", "network": network, "munchausen": {}, "exploration": "bootstrapped"}
    with pytest.raises(SettingError, match=r"munchausen.*no single policy"):
        build_part("agent", settings, spec=SPEC)


def test_munchausen_ignores_what_is_not_allowed() -> None:
    observation = spaces.Dict({"x": spaces.Discrete(3), "action_mask": spaces.MultiBinary(2)})
    spec = Spec(observation, spaces.Discrete(2))
    agent: DQN = build_part("agent", {"type": "dqn", "munchausen": {}}, spec=spec).value
    mask = torch.tensor([[1, 1], [1, 0], [0, 1]])
    then = torch.tensor([[1, 0], [1, 1], [0, 0]])  # the last: nothing is known, so all count
    x = batch()
    x.obs = {"x": x.obs, "action_mask": mask}
    x.next_obs = {"x": x.next_obs, "action_mask": then}
    loss = agent.temporal_difference(x)
    assert torch.isfinite(loss.value).all()
    later = agent.target(x.next_obs).q.mean
    assert later[0, 1].item() == -math.inf
    assert torch.isfinite(later[2]).all()
