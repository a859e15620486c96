"""Noise in weights: per episode, as strong as it should be, gone in evaluation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from coach.agents.dqn import DQN
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from gymnasium import spaces

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(4))
OBS = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))


def agent_of(**settings: Any) -> DQN:
    torch.manual_seed(0)
    network = {"embedder": {"type": "mlp", "hidden": [32], "layer_norm": True}, "heads": {"q": "q"}}
    exploration = {"type": "parameter_noise", **settings}
    built = build_part(
        "agent", {"type": "dqn", "network": network, "exploration": exploration}, spec=SPEC
    )
    agent: DQN = built.value
    return agent


def context(explore: bool = True, seed: int = 0) -> tuple[Context, list[int]]:
    episodes = [0] * 64
    rng = torch.Generator().manual_seed(seed)
    return Context(0, rng, torch.arange(64), explore, episodes=lambda: episodes), episodes


def act(agent: DQN, ctx: Context) -> torch.Tensor:
    with torch.inference_mode():
        return agent.act(OBS, None, ctx).action


def test_adapts_once_a_period_by_the_distance_over_all_of_it() -> None:
    """Distances near and far within a period count together; sigma stays what it was until then."""
    agent, (ctx, episodes) = agent_of(epsilon=0.3, sigma=0.2, adapt_every=4), context()
    batches = [scale * OBS for scale in (0.1, 3.0, 1.0, 0.2)]
    wanted = -math.log(1 - 0.3 + 0.3 / 4)
    sigma, sides = 0.2, set()
    for period in range(12):
        episodes[0] = period  # other noise, so that some periods are near and others far
        distances = []
        for obs in batches:
            assert float(ctx.notes.get("parameter_noise.sigma", sigma)) == pytest.approx(sigma)
            with torch.inference_mode():
                plain = agent.online(obs).q.mean.double().log_softmax(-1)
                noisy = agent.exploration.outputs(agent.online, obs, None, ctx)
                disturbed = noisy.q.mean.double().log_softmax(-1)
            distances.append(float((plain.exp() * (plain - disturbed)).sum(-1).mean()))
        nearer = np.mean(distances) < wanted
        sides.add(bool(nearer))
        sigma *= 1.01 if nearer else 1 / 1.01
        assert float(ctx.notes["parameter_noise.sigma"]) == pytest.approx(sigma)
        sigma *= 2.0 if nearer else 0.5  # so that the next one is likely to be on the other side
        ctx.notes["parameter_noise.sigma"] = torch.tensor(sigma)
    assert sides == {True, False}


def test_leaves_fixed_random_functions_as_they_are() -> None:
    """Of values made of a fixed function nearly alone, next to nothing changes."""
    head = {"type": "ensemble_q", "members": 3, "prior_scale": 1e6}
    network = {"embedder": {"type": "mlp", "hidden": [8]}, "heads": {"q": head}}
    exploration = {"type": "parameter_noise", "sigma": 0.5}
    settings = {"type": "dqn", "network": network, "exploration": exploration}
    agent: DQN = build_part("agent", settings, spec=SPEC).value
    agent.requires_grad_(False)  # as in a process that only acts
    plain = agent.online(OBS).q.every
    with torch.inference_mode():
        noisy = agent.exploration.outputs(agent.online, OBS, None, context()[0]).q.every
    assert plain.abs().mean() > 1e4
    assert 0.1 < (noisy - plain).abs().max() < 1e3


def test_stays_for_an_episode_and_changes_with_it() -> None:
    agent, (ctx, episodes) = agent_of(epsilon=0.5, sigma=0.5), context()
    first, again = act(agent, ctx), act(agent, ctx)
    assert (first == again).float().mean() > 0.9  # sigma alone has moved by a hundredth
    episodes[0] = 1
    assert (act(agent, ctx) == again).float().mean() < 0.9


def test_as_far_from_the_greedy_policy_as_epsilon_says() -> None:
    for epsilon in (0.02, 0.3):
        agent, (ctx, _) = agent_of(epsilon=epsilon, sigma=1.0, adapt_every=1), context()
        for _ in range(900):
            act(agent, ctx)
        with torch.inference_mode():
            told = agent.online(OBS).q.mean.log_softmax(-1)
            done = agent.exploration.outputs(agent.online, OBS, None, ctx).q.mean.log_softmax(-1)
        distance = (told.exp() * (told - done)).sum(-1).mean().item()
        wanted = -torch.tensor(1 - epsilon + epsilon / 4).log().item()
        assert distance == pytest.approx(wanted, rel=0.1)


def test_follows_the_weights_and_leaves_them_alone() -> None:
    agent, (ctx, _) = agent_of(epsilon=0.1, sigma=1e-6), context()
    before = {name: p.clone() for name, p in agent.online.named_parameters()}
    act(agent, ctx)
    assert all(torch.equal(p, before[name]) for name, p in agent.online.named_parameters())
    with torch.no_grad():
        for parameter in agent.online.parameters():
            parameter.neg_()
    with torch.inference_mode():
        greedy = agent.online(OBS).q.mean.argmax(-1)
    assert (act(agent, ctx) == greedy).float().mean() > 0.95


def test_none_in_evaluation() -> None:
    agent, (ctx, _) = agent_of(epsilon=0.9, sigma=5.0), context(explore=False)
    with torch.inference_mode():
        assert torch.equal(act(agent, ctx), agent.online(OBS).q.mean.argmax(-1))
    assert ctx.notes == {}


def test_a_resumed_actor_goes_on() -> None:
    agent, (ctx, _) = agent_of(epsilon=0.3), context()
    for _ in range(20):
        act(agent, ctx)
    other, (later, _) = agent_of(epsilon=0.3), context()
    later.notes.update({name: note.clone() for name, note in ctx.notes.items()})
    for _ in range(5):
        assert torch.equal(act(agent, ctx), act(other, later))
    assert ctx.notes.keys() == later.notes.keys()
    assert all(torch.equal(ctx.notes[name], later.notes[name]) for name in ctx.notes)


def test_agents_that_do_not_ask_it_refuse_it() -> None:
    exploration = build_part("exploration", "parameter_noise", spec=SPEC).value
    with pytest.raises(SettingError, match="disturbs the network, which some agent does not"):
        exploration.require("some agent", "values")
