"""Discrete soft actor-critic: critics, actor and temperature by hand, masks, time limits."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.agents.discrete_sac import DiscreteSAC
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

ACTIONS, ROWS = 3, 16
SPEC = Spec(spaces.Box(-1, 1, (4,)), spaces.Discrete(ACTIONS))
MASKED = Spec(
    spaces.Dict({"state": spaces.Box(-1, 1, (4,)), "action_mask": spaces.MultiBinary(ACTIONS)}),
    spaces.Discrete(ACTIONS),
)
#: Rows with three, two, one and (as behind an episode's end) no allowed action.
MASKS = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.int8)


def built(spec: Spec = SPEC, hidden: int | None = 8, **settings: Any) -> DiscreteSAC:
    torch.manual_seed(0)
    twins = {"type": "ensemble_q", "members": 2, "huber_delta": 0, "hidden": [hidden] * bool(hidden)}  # fmt: skip
    small = {
        "actor": {
            "embedder": {"type": "mlp", "hidden": [hidden] * bool(hidden)},
            "heads": {"policy": {"type": "categorical", "gain": 1.0}},
        },
        "critic": {"embedder": {"type": "mlp", "hidden": []}, "heads": {"q": twins}},
    }
    settings = {"type": "discrete_sac", **small, **settings}
    agent: DiscreteSAC = build_part("agent", settings, "agent", spec=spec).value
    with torch.no_grad():  # targets unlike the critics
        for parameter in agent.target.parameters():
            parameter.mul_(3.0)
    return agent


def transitions(masked: bool = False) -> Batch:
    rng = torch.Generator().manual_seed(0)

    def observed() -> Any:
        state = torch.rand(ROWS, 4, generator=rng)
        mask = MASKS.repeat(ROWS // len(MASKS), 1)
        return {"state": state, "action_mask": mask} if masked else state

    return Batch(
        obs=observed(),
        # One that is allowed, where any is.
        action=torch.tensor([2, 0, 1, 1] * (ROWS // 4)),
        reward=torch.rand(ROWS, generator=rng),
        discount=torch.tensor([0.9, 0.9, 0.9, 0.0] * (ROWS // 4)),
        next_obs=observed(),
        boundary=torch.tensor([False, False, False, True] * (ROWS // 4)),
    )


def soft_values(agent: DiscreteSAC, obs: Any, mask: torch.Tensor | None, alpha: float) -> list[float]:  # fmt: skip
    """``V(s) = sum_a pi(a|s) (min_i Q'_i(s, a) - alpha log pi(a|s))``, action by action."""
    with torch.no_grad():
        logits = agent.actor(obs).policy.logits.double().numpy()
        first, second = agent.target(obs).q.every.double().numpy()
    found = []
    for row in range(len(logits)):
        allowed = [a for a in range(ACTIONS) if mask is None or mask[row][a]] or [*range(ACTIONS)]
        weight = {a: math.exp(logits[row][a]) for a in allowed}
        total, value = sum(weight.values()), 0.0
        for a in allowed:
            p = weight[a] / total
            value += p * (min(first[row][a], second[row][a]) - alpha * math.log(p))
        found.append(value)
    return found


@pytest.mark.parametrize("masked", [False, True])
def test_both_critics_are_drawn_to_the_soft_value(masked: bool) -> None:
    agent = built(MASKED if masked else SPEC, temperature=0.3)
    batch = transitions(masked)
    mask = batch.next_obs["action_mask"] if masked else None
    value = torch.tensor(soft_values(agent, batch.next_obs, mask, 0.3), dtype=torch.float32)
    target = batch.reward + batch.discount * value
    later = agent.target(batch.next_obs).q.every
    assert (later[0] < later[1]).any(), "each of them is the smaller one somewhere"
    assert (later[1] < later[0]).any()
    loss = agent.soft_bellman(batch)
    first, second = agent.critic(batch.obs).q.every.gather(-1, batch.action.expand(2, -1)[..., None]).squeeze(-1)  # fmt: skip
    wanted = (0.5 * (first - target).square() + 0.5 * (second - target).square()) / 2
    torch.testing.assert_close(loss.value, wanted)
    assert loss.priority is not None
    distance = (first - target).abs() + (second - target).abs()
    torch.testing.assert_close(loss.priority, distance.detach() / 2)
    parameters = list(agent.critic.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(loss.value.sum(), parameters),
        torch.autograd.grad(wanted.sum(), parameters),
    ):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, theirs)


def test_one_target_by_hand() -> None:
    """Both actions alike, so V = 1/2 (2 + 1) + alpha log 2; only the terminal row is left alone."""
    spec = Spec(spaces.Discrete(2), spaces.Discrete(2))
    agent = built(spec, hidden=None, temperature=0.5)
    with torch.no_grad():
        for parameter in (*agent.actor.parameters(), *agent.critic.parameters()):
            parameter.zero_()
        last: Any = agent.target.network.heads["q"].members[-1]  # type: ignore[index, union-attr]
        last.bias.zero_()
        last.weight.copy_(torch.tensor([[[9.0, 9], [2, 6]], [[9, 9], [4, 1]]]))  # [E, state, A]
    batch = Batch(
        obs=torch.tensor([0, 0]),
        action=torch.tensor([1, 0]),
        reward=torch.tensor([1.0, 1.0]),
        discount=torch.tensor([0.9, 0.0]),
        next_obs=torch.tensor([1, 1]),
        boundary=torch.tensor([False, True]),
    )
    loss = agent.soft_bellman(batch)
    assert loss.priority is not None
    wanted = [1 + 0.9 * (1.5 + 0.5 * math.log(2)), 1.0]
    assert loss.priority.tolist() == pytest.approx(wanted)
    assert loss.value.tolist() == pytest.approx([0.5 * y * y for y in wanted])


@pytest.mark.parametrize("masked", [False, True])
def test_the_actor_weighs_value_against_entropy(masked: bool) -> None:
    agent = built(MASKED if masked else SPEC, temperature=0.3, learn_temperature=False)
    batch = transitions(masked)
    loss = agent.improve_policy(batch).value
    logits = agent.actor(batch.obs).policy.logits
    q = agent.critic(batch.obs).q.every.detach().amin(0)
    rows = []
    for row in range(ROWS):
        mask = batch.obs["action_mask"][row] if masked else torch.ones(ACTIONS)
        allowed = mask.nonzero().flatten() if mask.any() else torch.arange(ACTIONS)
        log_prob = logits[row, allowed] - logits[row, allowed].logsumexp(-1)
        rows.append((log_prob.exp() * (0.3 * log_prob - q[row, allowed])).sum())
    wanted = torch.stack(rows)
    parameters = list(agent.actor.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(loss.sum(), parameters), torch.autograd.grad(wanted.sum(), parameters)
    ):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_best_policy_is_the_softmax_of_the_values() -> None:
    """With critics that stay as they are, pi becomes exp(Q / alpha) / sum exp(Q / alpha)."""
    spec = Spec(spaces.Discrete(2), spaces.Discrete(ACTIONS))
    agent = built(spec, hidden=None, temperature=0.4, learn_temperature=False)
    table = torch.tensor([[[1.0, 0.4, 2.0], [0.0, 0.3, -1.0]], [[0.5, 0.9, 3.0], [0.2, 0.1, 5.0]]])
    with torch.no_grad():
        last: Any = agent.critic.heads["q"].members[-1]  # type: ignore[union-attr]
        last.bias.zero_()
        last.weight.copy_(table)
    batch = Batch(
        obs=torch.tensor([0, 1]),
        action=torch.tensor([0, 0]),
        reward=torch.zeros(2),
        discount=torch.zeros(2),
        next_obs=torch.tensor([0, 1]),
        boundary=torch.tensor([False, False]),
    )
    learner = Learner(agent, Adam(lr=0.05))
    learner.objectives = [goal for goal in learner.objectives if goal.name == "improve_policy"]
    for _ in range(400):
        learner.step(batch, 0)
    wanted = (table.amin(0) / 0.4).softmax(-1)
    torch.testing.assert_close(
        agent.actor(batch.obs).policy.log_probs.exp().detach(), wanted, rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
@pytest.mark.parametrize("masked", [False, True])
def test_the_temperature_follows_the_distance_to_the_target_entropy(
    masked: bool, share: float
) -> None:
    """Which is a share of the logarithm of how many actions a row allows."""
    agent = built(MASKED if masked else SPEC, target_entropy=share)
    batch = transitions(masked)
    with torch.no_grad():
        entropy = agent.actor(batch.obs).policy.entropy()
    most = [math.log(n) for n in ([3, 2, 1, 3] if masked else [3, 3, 3, 3])] * (ROWS // 4)
    wanted = float((entropy - share * torch.tensor(most)).mean())
    loss = agent.improve_policy(batch).value.mean()
    (gradient,) = torch.autograd.grad(loss, [agent.temperature])
    assert float(gradient) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("gain", "grows"), [(0.0, False), (30.0, True)])
def test_the_temperature_grows_where_entropy_is_missing(gain: float, grows: bool) -> None:
    agent, batch = built(target_entropy=0.6), transitions()
    with torch.no_grad():  # an even policy has more entropy than that, a decided one less
        agent.actor.heads["policy"].out.weight.mul_(gain)  # type: ignore[union-attr, operator]
    before = agent.temperature.item()
    Learner(agent, SGD(lr=0.1)).step(batch, 0)
    assert (agent.temperature.item() > before) is grows


def test_a_fixed_temperature_stays_and_needs_no_optimizer() -> None:
    agent = built(temperature=0.25, learn_temperature=False)
    learner = Learner(agent, Adam(lr=0.1))
    assert set(learner.learning_rates(0)) == {"critic", "actor"}
    for _ in range(3):
        learner.step(transitions(), 0)
    assert agent.temperature.exp().item() == pytest.approx(0.25)


def test_actions_that_are_not_allowed_are_never_taken_and_count_for_nothing() -> None:
    agent, batch = built(MASKED), transitions(masked=True)
    probability = agent.actor(batch.obs).policy.log_probs.exp()
    forbidden = (batch.obs["action_mask"] == 0) & batch.obs["action_mask"].any(-1, keepdim=True)
    assert (probability[forbidden] == 0).all()
    torch.testing.assert_close(probability.sum(-1), torch.ones(ROWS))
    ctx = Context(0, torch.Generator().manual_seed(0), torch.arange(ROWS))
    for explore in (True, False):
        ctx.explore = explore
        for _ in range(50):
            action = agent.act(batch.obs, None, ctx).action
            assert not forbidden.gather(-1, action[:, None]).any()
    before = agent.soft_bellman(batch).value, agent.improve_policy(batch).value
    with torch.no_grad():  # action 0 becomes splendid, where only action 1 is allowed
        for network in (agent.critic, agent.target.network):
            network.heads["q"].members[-1].bias[..., 0] += 1e6  # type: ignore[index, union-attr, operator]
    after = agent.soft_bellman(batch).value, agent.improve_policy(batch).value
    alone = torch.tensor([False, False, True, False] * (ROWS // 4))
    for old, new in zip(before, after):
        torch.testing.assert_close(old[alone], new[alone])
        assert not torch.allclose(old[~alone], new[~alone])


def test_learning_stays_finite_under_masks() -> None:
    agent, batch = built(MASKED), transitions(masked=True)
    learner = Learner(agent, Adam(lr=1e-2))
    for _ in range(50):
        update = learner.step(batch, 0)
        assert all(torch.isfinite(metric).all() for metric in update.metrics.values())
    assert all(torch.isfinite(p).all() for p in agent.parameters())


class Endless(gym.Env[Any, Any]):
    """Pays 1 a step and is over after three of them: cut off, or at an end."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, terminates: bool) -> None:
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps >= 3
        return np.ones(1, np.float32), 1.0, over and self.terminates, over and not self.terminates, {}  # fmt: skip


@pytest.mark.parametrize(
    ("terminates", "temperature", "worth"),
    [
        (False, 1e-4, 1 / (1 - 0.8)),
        (True, 1e-4, 1 / (1 - 0.8 * 2 / 3)),  # one step in three is the last
        # Nothing tells the actions apart, so every later step brings alpha log 2 beside its reward.
        (False, 1.0, (1 + 0.8 * math.log(2)) / (1 - 0.8)),
    ],
)
def test_a_time_limit_is_not_the_end_and_entropy_is_worth_something(
    terminates: bool, temperature: float, worth: float
) -> None:
    envs = SerialEnvs(lambda: Endless(terminates), 4, seed=0)
    agent = built(envs.spec, temperature=temperature, learn_temperature=False, target_tau=0.1)
    replay = {"type": "replay", "capacity": 200, "batch_size": 32, "warmup": 40, "discount": 0.8}
    memory: Memory = build_part("memory", replay, spec=envs.spec, num_envs=4, seed=0).value
    learner, actor = Learner(agent, Adam(lr=1e-2)), Actor(agent, envs, 4, seed=0)
    for _ in range(400):
        memory.write(actor.collect())
        for batch in memory.batches(learner.prepare):
            memory.feedback(batch, learner.step(batch, 0).priority)
    obs = torch.ones(1, 1)
    best = agent.actor(obs).policy.mode()  # a decided policy may never try the other one
    values = agent.critic(obs).q.every[..., best]
    assert values.flatten().tolist() == pytest.approx([worth] * 2, rel=0.05)


def test_the_target_follows_the_critics_slowly() -> None:
    agent = built(target_tau=0.25)
    before = [p.clone() for p in agent.target.parameters()]
    Learner(agent, Adam(lr=0.1)).step(transitions(), 0)
    for old, now, online in zip(before, agent.target.parameters(), agent.critic.parameters()):
        torch.testing.assert_close(now, old + 0.25 * (online.detach() - old))


def test_defaults_are_twin_critics_and_nearly_the_most_entropy() -> None:
    agent = DiscreteSAC(SPEC)
    assert agent.target_entropy == 0.98
    assert agent.temperature.exp().item() == 1.0
    values = agent.critic(torch.zeros(1, 4)).q
    assert values.every.shape == (2, 1, ACTIONS)
    assert values.huber_delta == 0
    assert agent.policy is agent.actor


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0}, ["agent.temperature"]),
        ({"target_entropy": 1.5}, ["agent.target_entropy"]),
        ({"critic": {"heads": {"q": "q"}}}, ["agent.critic.heads.q", "ensemble_values"]),
        ({"critic": {"heads": {"value": "value"}}}, ["called 'q'"]),
        ({"exploration": "epsilon_greedy"}, ["'epsilon_greedy' reads values"]),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", {"type": "discrete_sac", **settings}, "agent", spec=SPEC)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("action", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3])], ids=str)
def test_other_action_spaces_are_refused(action: spaces.Space[Any]) -> None:
    with pytest.raises(SettingError, match="agent discrete_sac serves Discrete actions"):
        DiscreteSAC(Spec(SPEC.observation, action))
