"""Actor-critic: on the policy that acted it is A2C, off it V-trace corrects; losses by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.agents.actor_critic import ActorCritic
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.schema import build_part
from coach.core.spec import Spec
from gymnasium import spaces
from torch import Tensor

SPEC = Spec(spaces.Box(-9, 9, (2,)), spaces.Discrete(3))
STEPS, ENVS, GAMMA = 5, 2, 0.9


def agent(**options: Any) -> ActorCritic:
    torch.manual_seed(0)
    network = {
        "embedder": {"type": "mlp", "hidden": [8]},
        "heads": {"policy": "categorical", "value": "value"},
    }
    settings = {"type": "actor_critic", "network": network, **options}
    built: ActorCritic = build_part("agent", settings, "agent", spec=SPEC).value
    return built


def rollout(acting: ActorCritic) -> Batch:
    """One episode terminates in the first column, one is cut off in the second."""
    rng = torch.Generator().manual_seed(1)
    obs = torch.randn(STEPS + 1, ENVS, 2, generator=rng)
    terminated = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    boundary = terminated.clone()
    terminated[2, 0] = boundary[2, 0] = boundary[1, 1] = True
    next_obs = obs[1:].clone()
    next_obs[boundary] = torch.randn(2, 2, generator=rng)
    with torch.no_grad():
        flat = obs[:-1].flatten(0, 1)
        chosen = acting.act(flat, None, Context(0, rng, torch.arange(len(flat))))
    return Batch(
        obs=obs[:-1],
        action=chosen.action.view(STEPS, ENVS),
        reward=torch.randn(STEPS, ENVS, generator=rng),
        discount=GAMMA * (~terminated).float(),
        next_obs=next_obs,
        boundary=boundary,
        extras={name: extra.view(STEPS, ENVS) for name, extra in chosen.extras.items()},
    )


def n_step_targets(critic: ActorCritic, batch: Batch) -> Tensor:
    """Plain loops: rewards up to the boundary or the end, then the value of what followed."""
    targets = torch.zeros(STEPS, ENVS)
    for n in range(ENVS):
        for t in range(STEPS):
            total, weight = 0.0, 1.0
            for k in range(t, STEPS):
                total += weight * float(batch.reward[k, n])
                weight *= float(batch.discount[k, n])
                if batch.boundary[k, n] or k == STEPS - 1:
                    value = critic.network(batch.next_obs[k, n : n + 1]).value
                    total += weight * float(value)
                    break
            targets[t, n] = total
    return targets


def test_with_the_newest_policy_it_is_the_n_step_return() -> None:
    learner = agent(entropy_coefficient=0.0, value_coefficient=0.5)
    batch = rollout(learner)
    with torch.no_grad():
        targets = n_step_targets(learner, batch).flatten()
        outputs = learner.network(batch.obs.flatten(0, 1))
        log_prob = outputs.policy.log_prob(batch.action.flatten())
        advantage = targets - outputs.value
        wanted = -log_prob * advantage + 0.5 * 0.5 * advantage.square()
    loss = learner.policy_gradient(batch.flatten())
    torch.testing.assert_close(loss.value.detach(), wanted, rtol=1e-4, atol=1e-5)


def test_actions_that_the_policy_has_left_count_less() -> None:
    """Half as probable now as when it acted: the whole correction is halved (c and rho at once)."""
    learner = agent(entropy_coefficient=0.0, value_coefficient=0.0)
    batch = rollout(learner)
    batch.boundary[:] = True  # every step an episode of its own, so that traces play no role
    batch.discount[:] = 0.0
    now = learner.policy_gradient(batch.flatten()).value.detach()
    batch.extras["log_prob"] = batch.extras["log_prob"] + torch.tensor(2.0).log()
    half = learner.policy_gradient(batch.flatten()).value.detach()
    torch.testing.assert_close(half, now / 2)


def test_actions_that_became_likelier_are_clipped() -> None:
    learner = agent(entropy_coefficient=0.0, value_coefficient=0.0)
    batch = rollout(learner)
    now = learner.policy_gradient(batch.flatten()).value.detach()
    batch.extras["log_prob"] = batch.extras["log_prob"] - 5.0
    assert learner.policy_gradient(batch.flatten()).value.detach().equal(now)


def test_entropy_is_a_bonus() -> None:
    without, with_bonus = agent(entropy_coefficient=0.0), agent(entropy_coefficient=0.3)
    batch = rollout(without)
    entropy = without.network(batch.obs.flatten(0, 1)).policy.entropy().detach()
    difference = (
        without.policy_gradient(batch.flatten()).value
        - with_bonus.policy_gradient(batch.flatten()).value
    )
    torch.testing.assert_close(difference.detach(), 0.3 * entropy)


def test_metrics_are_finite() -> None:
    learner = agent(normalize_advantages=True)
    metrics = learner.policy_gradient(rollout(learner).flatten()).metrics()
    assert metrics["policy/kl"] == pytest.approx(0.0, abs=1e-6)
    assert all(torch.isfinite(value) for value in metrics.values())
