"""Normalized advantage functions: targets by hand, a known optimum, time limits."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.agents.naf import NAF
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.memory import Memory
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.environments.serial import SerialEnvs
from coach.optimizers.adam import Adam
from coach.optimizers.sgd import SGD
from coach.runners.actor import Actor
from gymnasium import spaces

BOX = spaces.Box(np.array([-2, 0], np.float32), np.array([4, 1], np.float32))
SPEC = Spec(spaces.Discrete(3), BOX)
LINEAR = {"embedder": {"type": "mlp", "hidden": []}, "heads": {"q": "naf"}}
#: V, both entries of the raw mean, of the logarithm of L's diagonal, and the one below it.
ONLINE = torch.tensor(
    [
        [2.0, 0.0, 0.0, math.log(2.0), 0.0, 3.0],
        [5.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
TARGET_VALUE = torch.tensor([9.0, 3.0, -4.0])


def tabular(**settings: Any) -> NAF:
    """A network that reads its outputs off a table, one row per state."""
    built = build_part("agent", {"type": "naf", "network": LINEAR, **settings}, "agent", spec=SPEC)
    agent: NAF = built.value
    with torch.no_grad():
        for network in (agent.online, agent.target.network):
            network.heads["q"].out.weight.copy_(ONLINE.t())  # type: ignore[index, union-attr]
            network.heads["q"].out.bias.zero_()  # type: ignore[index, union-attr]
        agent.target.network.heads["q"].out.weight[0] = TARGET_VALUE  # type: ignore[index, union-attr]
    return agent


def transitions() -> Batch:
    """State 0 to 1; 1 to 2, cut off by a time limit; 2 to 0, which terminates."""
    return Batch(
        obs=torch.tensor([0, 1, 2]),
        action=torch.tensor([[1.0, 0.5], [0.0, 0.0], [-1.0, 0.0]]),
        reward=torch.tensor([1.0, -1.0, 0.5]),
        discount=torch.tensor([0.9, 0.5, 0.0]),
        next_obs=torch.tensor([1, 2, 0]),
        boundary=torch.tensor([False, True, True]),
    )


def test_values_are_drawn_to_the_targets_value_of_the_next_state() -> None:
    loss = tabular().temporal_difference(transitions())
    q = [2 - (3.5**2 + 0.5**2) / 2, 5.0, -1 - 0.5]  # see test_naf_head for the first
    y = [1 + 0.9 * 3, -1 + 0.5 * -4, 0.5]  # the time limit bootstraps, the terminal state does not
    errors = torch.tensor([a - b for a, b in zip(q, y)])
    torch.testing.assert_close(loss.value, 0.5 * errors.square())
    assert loss.priority is not None
    torch.testing.assert_close(loss.priority, errors.abs())
    assert not loss.priority.requires_grad
    told = loss.metrics()
    assert told["q/td_error"].item() == pytest.approx(errors.abs().mean().item())
    assert told["q/advantage"].item() == pytest.approx((-6.25 + 0 - 0.5) / 3)


def test_only_the_online_network_gets_a_gradient() -> None:
    agent = tabular()
    weight = agent.online.heads["q"].out.weight
    (gradient,) = torch.autograd.grad(agent.temporal_difference(transitions()).value.sum(), [weight])  # type: ignore[list-item]  # fmt: skip
    # V of each visited state moves by its error; state 1 took the best action, so nothing else.
    assert gradient[0].tolist() == pytest.approx([-4.25 - 3.7, 5 + 3, -1.5 - 0.5])
    assert not gradient[1:, 1].any()
    assert gradient[1:, 0].all()


def test_a_known_quadratic_is_found() -> None:
    """Rewards -(a - b)^T M (a - b) / 2 + 1 that end at once: m becomes b, P becomes M, V is 1."""
    best, form = torch.tensor([0.3, -0.4]), torch.tensor([[7.2, 0.9], [0.9, 0.5]])
    torch.manual_seed(0)
    spec = Spec(spaces.Box(-1, 1, (1,)), BOX)
    agent: NAF = build_part("agent", {"type": "naf", "network": LINEAR}, spec=spec).value
    learner = Learner(agent, Adam(lr=2e-2))
    for _ in range(1_500):
        action = 2 * torch.rand(32, 2) - 1
        away = action - best
        reward = 1 - 0.5 * torch.einsum("bi,ij,bj->b", away, form, away)
        obs, end = torch.ones(32, 1), torch.zeros(32)
        learner.step(Batch(obs, action, reward, end, obs, end == 0), 0)
    values = agent.online(torch.ones(1, 1)).q
    assert values.value.item() == pytest.approx(1, abs=0.01)
    assert values.mean[0].tolist() == pytest.approx(best.tolist(), abs=0.01)
    assert values.precision[0].flatten().tolist() == pytest.approx(form.flatten().tolist(), rel=0.05)  # fmt: skip


class Endless(gym.Env[Any, Any]):
    """Pays 1 a step and is over after three of them: cut off, or at an end."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (2,))

    def __init__(self, terminates: bool) -> None:
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps >= 3
        return np.ones(1, np.float32), 1.0, over and self.terminates, over and not self.terminates, {}  # fmt: skip


@pytest.mark.parametrize("sampler", ["uniform", "prioritized"])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("terminates", "worth"),
    [
        (False, 1 / (1 - 0.8)),
        # One step in three is the last: v = 1 + 0.8 * 2/3 * v. With three steps, the rows are
        # 1 + 0.8 + 0.64, 1 + 0.8 and 1, and none of them bootstraps.
        (True, {1: 1 / (1 - 0.8 * 2 / 3), 3: (2.44 + 1.8 + 1) / 3}),
    ],
)
def test_a_time_limit_is_not_the_end(
    terminates: bool, worth: Any, n_step: int, sampler: str
) -> None:
    torch.manual_seed(0)
    envs = SerialEnvs(lambda: Endless(terminates), 4, seed=0)
    network = {"embedder": {"type": "mlp", "hidden": [16]}, "heads": {"q": "naf"}}
    settings = {"type": "naf", "target_tau": 0.1, "network": network}
    agent = build_part("agent", settings, spec=envs.spec).value
    replay = {
        "type": "replay",
        "capacity": 200,
        "batch_size": 32,
        "warmup": 40,
        "discount": 0.8,
        "n_step": n_step,
        "sampler": sampler if sampler == "uniform" else {"type": sampler, "beta": 1.0},
    }
    memory: Memory = build_part("memory", replay, spec=envs.spec, num_envs=4, seed=0).value
    learner, actor = Learner(agent, Adam(lr=1e-2)), Actor(agent, envs, 4, seed=0)
    for _ in range(400):
        memory.write(actor.collect())
        for batch in memory.batches(learner.prepare):
            memory.feedback(batch, learner.step(batch, 0).priority)
    value = agent.online(torch.ones(1, 1)).q.value.item()
    wanted = worth[n_step] if isinstance(worth, dict) else worth
    # Weights against the bias of priorities are scaled in each batch by the largest of them, which
    # leaves some of it where rows differ.
    assert value == pytest.approx(wanted, rel=0.05 if sampler == "uniform" else 0.12)


def test_acts_around_the_best_action_and_evaluates_it() -> None:
    agent = tabular(exploration={"type": "gaussian", "scale": 0.1})
    obs = torch.zeros(4_000, dtype=torch.int64)
    ctx = Context(0, torch.Generator().manual_seed(0), torch.arange(4_000))
    action = agent.act(obs, None, ctx).action
    assert action.mean(0).tolist() == pytest.approx([0, 0], abs=0.01)
    assert action.std(0).tolist() == pytest.approx([0.1, 0.1], rel=0.05)
    ctx.explore = False
    assert not agent.act(obs, None, ctx).action.any()
    assert agent.monitor(0) == {"noise": 0.1}
    assert agent.policy is agent.online


def test_acting_alone_gives_what_the_network_says() -> None:
    spec = Spec(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (1,)))
    agent: NAF = build_part("agent", {"type": "naf", "network": LINEAR}, "agent", spec=spec).value
    ctx = Context(0, torch.Generator(), torch.arange(1), explore=False)
    rows = [torch.full((1, 3), state / 2) for state in (0, 1, 2)]
    wanted = [agent.online(obs).q.mean.detach() for obs in rows]  # as where gradients are needed
    with torch.inference_mode():
        for obs, action in [*zip(rows, wanted)] * 2:
            torch.testing.assert_close(agent.act(obs, None, ctx).action, action)


def test_the_target_follows_slowly() -> None:
    agent = tabular(target_tau=0.25)
    learner = Learner(agent, SGD(lr=0.01))
    before = [p.clone() for p in agent.target.parameters()]
    learner.step(transitions(), 0)
    for old, now, online in zip(before, agent.target.parameters(), agent.online.parameters()):
        torch.testing.assert_close(now, old + 0.25 * (online.detach() - old))


def test_pictures_get_convolutions() -> None:
    pictures = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    agent = NAF(Spec(pictures, BOX))
    values = agent.online(torch.zeros(2, 36, 36, 1, dtype=torch.uint8)).q
    assert values.mean.shape == (2, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": {"heads": {"q": "continuous_q"}}}, ["heads.q", "quadratic_values"]),
        ({"network": {"heads": {"value": "value"}}}, ["called 'q'"]),
        ({"exploration": "sample"}, ["agent.exploration", "'sample' reads distribution"]),
        ({"exploration": "boltzmann"}, ["'boltzmann' reads values"]),
        ({"target_tau": 0}, ["agent.target_tau"]),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", {"type": "naf", **settings}, "agent", spec=SPEC)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (spaces.Discrete(3), ["agent naf serves Box actions", "Choose agent dqn or ppo"]),
        (spaces.Box(-float("inf"), 1, (2,)), ["agent naf needs bounded actions"]),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused(action: spaces.Space[Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        NAF(Spec(SPEC.observation, action))
    for word in words:
        assert word in str(raised.value)
