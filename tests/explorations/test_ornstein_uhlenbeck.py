"""Noise that drifts: its spread, its memory, its beginnings, and that it needs no state."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.explorations.ornstein_uhlenbeck import OrnsteinUhlenbeck
from coach.functional.distributions import DiagonalGaussian
from coach.functional.schedules import Linear
from coach.runners.actor import Actor
from gymnasium import spaces
from mode_runs import outcome, settings_for
from small_loop import small_loop
from worlds import ACTIONS, OBSERVATIONS, World

BOX = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 4], np.float32))
SPEC = Spec(OBSERVATIONS["vector"], BOX)
CENTRE = torch.tensor([0.0, 0.0])
LENGTH = 4


def world() -> World:
    return World(
        copy.deepcopy(OBSERVATIONS["vector"]), copy.deepcopy(ACTIONS["box"]), length=LENGTH
    )


def acting(seed: int = 0) -> Actor:
    """Two environments with noisy actions."""
    settings = {"type": "naf", "exploration": "ornstein_uhlenbeck"}
    return small_loop(settings, world, seed=seed).actor


def noise(
    steps: range, envs: int = 1, episode: int = 0, seed: int = 0, **settings: Any
) -> torch.Tensor:
    """``[steps, envs, 2]`` what is added to an action."""
    built = OrnsteinUhlenbeck(SPEC, **settings)
    rng, ids = torch.Generator().manual_seed(seed), torch.arange(envs)
    episodes = [episode] * envs
    rows = [
        built(CENTRE.expand(envs, 2), Context(t * envs, rng, ids, episodes=lambda: episodes))
        for t in steps
    ]
    return torch.stack(rows) - CENTRE


def correlation(one: torch.Tensor, two: torch.Tensor) -> float:
    return float(np.corrcoef(one.flatten().numpy(), two.flatten().numpy())[0, 1])


def test_its_stationary_spread_is_in_the_agents_unit() -> None:
    drawn = noise(range(200), envs=200, scale=0.2, scale_of="stationary")
    assert drawn.mean((0, 1)).tolist() == pytest.approx([0, 0], abs=0.01)
    assert drawn.std((0, 1)).tolist() == pytest.approx([0.2, 0.2], rel=0.03)


@pytest.mark.parametrize(("theta", "scale"), [(0.15, 0.2), (0.4, 0.3), (1.0, 0.25)])
def test_as_published_it_is_what_a_step_adds(theta: float, scale: float) -> None:
    """The differential equation, stepped by Euler's method with steps of length 1."""
    drawn = noise(range(150), envs=300, scale=scale, theta=theta)
    added = drawn[1:] - (1 - theta) * drawn[:-1]
    assert added.std((0, 1)).tolist() == pytest.approx([scale] * 2, rel=0.02)
    rng = np.random.default_rng(0)
    x = np.zeros(20_000)
    for _ in range(100):
        x = x - theta * x + scale * rng.normal(size=x.shape)
    assert drawn.std((0, 1)).tolist() == pytest.approx([x.std()] * 2, rel=0.04)


def test_the_first_step_is_normal_and_as_wide_as_any_other() -> None:
    first = noise(range(1), envs=5_000, scale=0.2, scale_of="stationary")
    assert first.std((0, 1)).tolist() == pytest.approx([0.2, 0.2], rel=0.04)
    # Of a normal density, the fourth moment is three times the squared variance.
    assert float((first / 0.2).pow(4).mean()) == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("theta", [0.05, 0.15, 0.6, 1.0])
def test_it_forgets_a_share_at_each_step(theta: float) -> None:
    drawn = noise(range(40), envs=500, theta=theta, scale=0.2)
    for lag in (1, 2, 5):
        assert correlation(drawn[:-lag], drawn[lag:]) == pytest.approx((1 - theta) ** lag, abs=0.03)


def test_what_is_added_is_independent_of_what_was() -> None:
    """``e = x' - (1 - theta) x`` is white, with the deviation that the docstring tells."""
    drawn = noise(range(60), envs=500, theta=0.15, scale=0.2, scale_of="stationary")
    added = drawn[1:] - 0.85 * drawn[:-1]
    assert float(added.std()) == pytest.approx(0.2 * (1 - 0.85**2) ** 0.5, rel=0.02)
    assert correlation(added[1:], drawn[1:-1]) == pytest.approx(0, abs=0.02)
    assert correlation(added[1:], added[:-1]) == pytest.approx(0, abs=0.02)


def test_dimensions_environments_episodes_and_seeds_have_noise_of_their_own() -> None:
    steps, envs = range(40), 200
    drawn = noise(steps, envs)
    for other in (
        drawn.flip(-1),
        drawn.roll(1, 1),
        noise(steps, envs, episode=1),
        noise(steps, envs, seed=1),
    ):
        assert correlation(drawn, other) == pytest.approx(0, abs=0.06)


def test_an_episode_ends_the_memory_of_its_environment_alone() -> None:
    built, episodes = OrnsteinUhlenbeck(SPEC), [0, 0]
    rng = torch.Generator().manual_seed(0)
    ctx = Context(100, rng, torch.arange(2), episodes=lambda: episodes)
    before = built(CENTRE.expand(2, 2), ctx)
    episodes[1] = 1
    after = built(CENTRE.expand(2, 2), ctx)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_environments_tell_their_episodes_to_who_acts_in_them() -> None:
    """What the independence of episodes rests on."""
    actor = acting()
    assert actor.ctx.episodes is not None
    assert actor.collect().boundary.any()
    assert list(actor.ctx.episodes()) == [actor.length // LENGTH] * 2


def test_nothing_is_remembered() -> None:
    """Any step can be made first, and again."""
    whole = noise(range(30), envs=3)
    assert torch.equal(noise(range(20, 30), envs=3), whole[20:])


def test_the_stream_is_left_to_others() -> None:
    rng = torch.Generator().manual_seed(3)
    before = rng.get_state()
    OrnsteinUhlenbeck(SPEC)(CENTRE.expand(2, 2), Context(0, rng, torch.arange(2)))
    assert torch.equal(rng.get_state(), before)


def test_an_actor_that_goes_on_from_its_state_makes_the_same_noise() -> None:
    first, second = acting(), acting()
    for _ in range(3):
        first.collect()
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert torch.equal(first.collect().action, second.collect().action)


def test_workers_make_the_noise_that_one_process_makes(tmp_path: Path) -> None:
    agent = {"type": "naf", "exploration": "ornstein_uhlenbeck"}
    wanted = outcome(tmp_path, settings_for(agent))
    run = {"mode": "sync", "workers": 2, "worker_kind": "thread"}
    assert outcome(tmp_path, settings_for(agent, **run)) == wanted


def test_it_does_not_matter_who_acts_in_the_other_environments() -> None:
    built, output = OrnsteinUhlenbeck(SPEC), CENTRE.expand(4, 2)
    rng = torch.Generator().manual_seed(0)
    together = built(output, Context(40, rng, torch.arange(4), num_envs=4))
    apart = built(output[:2], Context(40, rng, torch.arange(2, 4), num_envs=4))
    torch.testing.assert_close(together[2:], apart)


def test_it_stays_in_bounds_follows_its_schedule_and_leaves_evaluation_alone() -> None:
    built, output = OrnsteinUhlenbeck(SPEC, scale=Linear(5.0, 0.0, 10)), CENTRE.expand(500, 2)
    ctx = Context(0, torch.Generator().manual_seed(0), torch.arange(500))
    wild = built(output, ctx)
    assert wild.amin(0).tolist() == [-1, -1]
    assert wild.amax(0).tolist() == [1, 1]
    assert built.monitor(5) == {"noise": pytest.approx(2.5)}
    ctx.step = 10
    assert torch.equal(built(output, ctx), output)
    ctx.step, ctx.explore = 0, False
    assert torch.equal(built(output, ctx), output)


def test_it_surrounds_the_mode_of_a_distribution() -> None:
    policy = DiagonalGaussian(torch.tensor([[0.5, -0.3]]).expand(2_000, 2), torch.full((2,), 3.0))
    ctx = Context(0, torch.Generator().manual_seed(0), torch.arange(2_000))
    drawn = OrnsteinUhlenbeck(SPEC, scale=0.01)(policy, ctx)
    assert drawn.mean(0).tolist() == pytest.approx([0.5, -0.3], abs=0.01)


@pytest.mark.parametrize("theta", [0, 0.001, 1.5])
def test_a_theta_out_of_range_is_refused(theta: float) -> None:
    with pytest.raises(SettingError, match="theta"):
        build_part("exploration", {"type": "ornstein_uhlenbeck", "theta": theta}, spec=SPEC)


def test_it_needs_bounds() -> None:
    unbounded = Spec(OBSERVATIONS["vector"], spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(SettingError, match="exploration ornstein_uhlenbeck needs bounded"):
        build_part("exploration", "ornstein_uhlenbeck", spec=unbounded)
