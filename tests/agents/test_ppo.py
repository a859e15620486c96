"""Proximal policy optimisation: advantages against a plain loop, the surrogate by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.agents.ppo import PPO
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

SPEC = Spec(spaces.Box(-9, 9, (2,)), spaces.Discrete(3))
SMALL = {
    "embedder": {"type": "mlp", "hidden": [8]},
    "heads": {"policy": "categorical", "value": "value"},
}


def ppo(spec: Spec = SPEC, **options: Any) -> PPO:
    torch.manual_seed(0)
    agent: PPO = build_part(
        "agent", {"type": "ppo", "network": SMALL, **options}, "agent", spec=spec
    ).value
    return agent


def rollout(agent: PPO, ends: list[list[str]], seed: int = 0, gamma: float = 0.9) -> Batch:
    """A rollout ``[T, N]`` as the memory hands it to `prepare`; ``ends``: "", "end" or "cut"."""
    rng = torch.Generator().manual_seed(seed)
    steps, envs = len(ends), len(ends[0])
    obs = torch.randn(steps + 1, envs, 2, generator=rng)
    over = np.array(ends)
    boundary = torch.from_numpy(over != "")
    final = torch.randn(steps, envs, 2, generator=rng)  # not the first of the next episode
    next_obs = torch.where(boundary[..., None], final, obs[1:])
    flat = obs[:-1].flatten(0, 1)
    with torch.no_grad():
        chosen = agent.act(flat, None, Context(0, rng, torch.arange(len(flat))))
    return Batch(
        obs=obs[:-1],
        action=chosen.action.view(steps, envs),
        reward=torch.randn(steps, envs, generator=rng),
        discount=gamma * torch.from_numpy(over != "end").float(),
        next_obs=next_obs,
        boundary=boundary,
        extras={name: extra.view(steps, envs) for name, extra in chosen.extras.items()},
    )


ENDS = st.sampled_from(["", "", "", "end", "cut"])


@settings(max_examples=40)
@given(
    st.integers(1, 3).flatmap(
        lambda envs: st.lists(st.lists(ENDS, min_size=envs, max_size=envs), min_size=1, max_size=8)
    ),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.integers(0, 100),
)
def test_advantages_equal_a_plain_loop(ends: list[list[str]], lambda_: float, seed: int) -> None:
    agent = ppo(gae_lambda=lambda_)
    batch = rollout(agent, ends, seed)
    with torch.no_grad():
        prepared = agent.prepare(batch)
        value = agent.network(batch.obs.flatten(0, 1)).value.view(batch.reward.shape)
        behind = agent.network(batch.next_obs.flatten(0, 1)).value.view(batch.reward.shape)
    for env in range(len(ends[0])):
        running = 0.0
        for t in reversed(range(len(ends))):
            end = ends[t][env]
            bootstrap = 0.0 if end == "end" else 0.9 * float(behind[t, env])
            error = float(batch.reward[t, env]) + bootstrap - float(value[t, env])
            running = error + (0.0 if end else 0.9 * lambda_ * running)
            got = prepared.extras["advantage"][t, env]
            assert float(got) == pytest.approx(running, abs=1e-4)
            total = prepared.extras["returns"][t, env]
            assert float(total) == pytest.approx(running + float(value[t, env]), abs=1e-4)


def hand_made(**options: Any) -> tuple[PPO, Batch]:
    """An agent and three rows whose ratios are 1.5, 0.5 and 1 (with a clip of 0.2)."""
    agent = ppo(normalize_advantages=False, value_coefficient=0.0, **options)
    obs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    action = torch.tensor([0, 1, 2])
    with torch.no_grad():
        outputs = agent.network(obs)
        log_prob = outputs.policy.log_prob(action)
    extras = {
        "log_prob": log_prob - torch.tensor([1.5, 0.5, 1.0]).log(),
        "value": outputs.value + torch.tensor([0.0, 0.3, -1.0]),
        "advantage": torch.tensor([2.0, -1.0, 3.0]),
        "returns": outputs.value + torch.tensor([1.0, -2.0, 0.5]),
    }
    zeros = torch.zeros(3)
    return agent, Batch(obs, action, zeros, zeros, None, zeros.bool(), extras=extras)


def test_the_surrogate_by_hand() -> None:
    agent, batch = hand_made()
    wanted = [-1.2 * 2.0, 0.8 * 1.0, -3.0]  # clipped, clipped, as it is
    torch.testing.assert_close(
        agent.clipped_surrogate(batch).value, torch.tensor(wanted), rtol=1e-4, atol=1e-5
    )


def test_the_value_loss_by_hand() -> None:
    plain, batch = hand_made()
    policy = plain.clipped_surrogate(batch).value
    agent, batch = hand_made()
    agent.value_coefficient = 2.0
    # Half the squared distance to the returns, times two.
    wanted = policy + torch.tensor([1.0, 4.0, 0.25])
    torch.testing.assert_close(agent.clipped_surrogate(batch).value, wanted, rtol=1e-4, atol=1e-5)


def test_a_clipped_value_counts_where_it_is_worse() -> None:
    plain, batch = hand_made()
    policy = plain.clipped_surrogate(batch).value
    agent, batch = hand_made(value_clip=0.1)
    agent.value_coefficient = 2.0
    # Rows 1 and 2 moved by -0.3 and +1 since acting; held at 0.1 they stand at +0.2 and -0.9.
    wanted = policy + torch.tensor([1.0, max(4.0, 2.2**2), max(0.25, 1.4**2)])
    torch.testing.assert_close(agent.clipped_surrogate(batch).value, wanted, rtol=1e-4, atol=1e-5)


def test_entropy_is_a_bonus() -> None:
    plain, batch = hand_made()
    agent, _ = hand_made(entropy_coefficient=0.5)
    entropy = agent.network(batch.obs).policy.entropy()
    difference = plain.clipped_surrogate(batch).value - agent.clipped_surrogate(batch).value
    torch.testing.assert_close(difference, 0.5 * entropy, rtol=1e-4, atol=1e-5)


def test_advantages_are_normalized_within_the_minibatch() -> None:
    agent, batch = hand_made()
    agent.normalize_advantages = True
    batch.extras["log_prob"] = agent.network(batch.obs).policy.log_prob(batch.action).detach()
    value = agent.clipped_surrogate(batch).value.detach()
    assert float(value.mean()) == pytest.approx(0, abs=1e-5)
    assert float(value.std()) == pytest.approx(1, abs=1e-4)
    alone = agent.clipped_surrogate(batch[:1]).value  # one row has no deviation
    assert alone.tolist() == pytest.approx([-2.0])


def test_the_first_epoch_starts_at_the_policy_that_acted() -> None:
    agent = ppo(normalize_advantages=False, value_coefficient=0.0)
    with torch.no_grad():
        batch = agent.prepare(rollout(agent, [["", "cut"], ["end", ""], ["", ""]])).flatten()
    loss = agent.clipped_surrogate(batch)
    torch.testing.assert_close(loss.value, -batch.extras["advantage"], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        metrics = loss.metrics()
    assert float(metrics["policy/kl"]) == pytest.approx(0, abs=1e-6)
    assert float(metrics["policy/clip_fraction"]) == 0


@pytest.mark.parametrize(
    ("action", "policy"),
    [
        (spaces.Discrete(3), "Categorical"),
        (spaces.MultiDiscrete([2, 3]), "MultiCategorical"),
        (spaces.MultiBinary(4), "MultiCategorical"),
        (spaces.Box(-1, 1, (2,)), "DiagonalGaussian"),
    ],
    ids=str,
)
def test_every_action_space_gets_its_policy(action: spaces.Space[Any], policy: str) -> None:
    agent = PPO(Spec(SPEC.observation, action))
    assert type(agent.network(torch.zeros(1, 2)).policy).__name__ == policy


def test_what_was_drawn_is_kept_beyond_the_bounds() -> None:
    """The density belongs to the action drawn, not to the one that the environment is given."""
    spec = Spec(SPEC.observation, spaces.Box(-0.1, 0.1, (1,)))
    agent = PPO(spec)
    ctx = Context(0, torch.Generator().manual_seed(0), torch.arange(200))
    with torch.no_grad():
        chosen = agent.act(torch.zeros(200, 2), None, ctx)
        again = agent.network(torch.zeros(200, 2)).policy.log_prob(chosen.action)
    assert chosen.action.abs().max() > 0.1
    assert torch.equal(again, chosen.extras["log_prob"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip": 0}, ["agent.clip"]),
        ({"gae_lambda": 1.1}, ["agent.gae_lambda"]),
        ({"network": {"heads": {"policy": "categorical"}}}, ["called 'value'"]),
        ({"network": {"heads": {"policy": "q", "value": "value"}}}, ["provides distribution"]),
        ({"exploration": "epsilon_greedy"}, ["'epsilon_greedy' reads values", "distribution"]),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        ppo(**options)
    for word in words:
        assert word in str(raised.value)
