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


def test_persistent_advantage_learning_takes_the_larger_target() -> None:
    """Equation 9, with a single estimator."""
    best = REWARD + GAMMA * TARGET[NEXT].max(-1)
    again = REWARD + GAMMA * TARGET[NEXT, ACTION]
    wanted = np.maximum(best - 0.9 * gap(), again)
    assert not np.allclose(wanted, best - 0.9 * gap())
    check(agent_of(double=False, advantage={"alpha": 0.9, "persistent": True}), wanted)


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
