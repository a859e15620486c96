"""What single heads promise: bounds, independence, beginnings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.heads.categorical import CategoricalPolicy
from coach.architectures.heads.continuous_q import ContinuousQ
from coach.architectures.heads.dueling_q import DuelingQ
from coach.architectures.heads.gaussian import GaussianPolicy
from coach.architectures.heads.squashed_gaussian import SquashedGaussianPolicy
from coach.architectures.heads.value import Value
from coach.architectures.network import Network
from coach.core.context import Context
from coach.core.spec import Spec
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

OBS = spaces.Box(-1, 1, (3,))
BOX = Spec(OBS, spaces.Box(np.array([-3, 10], np.float32), np.array([1, 10.5], np.float32)))


def context(seed: int = 0) -> Context:
    return Context(0, torch.Generator().manual_seed(seed), torch.arange(50))


@settings(max_examples=60)
@given(st.floats(-1e4, 1e4, width=32), st.integers(0, 1000))
def test_a_squashed_gaussian_keeps_to_the_bounds_whatever_comes_in(size: float, seed: int) -> None:
    torch.manual_seed(seed)
    policy = SquashedGaussianPolicy(4, BOX)(size * torch.randn(50, 4))
    drawn, log_prob = policy.sample_with_log_prob(torch.Generator().manual_seed(seed))
    for action in (policy.mode(), policy.sample(context(seed)), drawn):
        assert (action.abs() <= 1).all()
    assert torch.isfinite(log_prob).all()


def test_a_squashed_gaussian_reaches_both_bounds() -> None:
    head = SquashedGaussianPolicy(4, BOX)
    drawn = head(100 * torch.randn(500, 4)).mode()
    assert drawn.amin(0).tolist() == pytest.approx([-1, -1], abs=1e-3)
    assert drawn.amax(0).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_deviations_stay_within_their_limits() -> None:
    head = SquashedGaussianPolicy(4, BOX, log_std_min=-1.0, log_std_max=0.5)
    log_std = head(1000 * torch.randn(200, 4)).inner.log_std
    assert (log_std.min().item(), log_std.max().item()) == (-1.0, 0.5)


def test_members_of_an_ensemble_do_not_know_each_other() -> None:
    torch.manual_seed(0)
    head = ContinuousQ(3, BOX, hidden=[5, 5], ensemble=3)
    values = head(torch.randn(4, 3))(torch.randn(4, 2))
    assert values.shape == (3, 4)
    for member in range(3):
        for gradient in torch.autograd.grad(
            values[member].sum(), list(head.parameters()), retain_graph=True
        ):
            others = [other for other in range(3) if other != member]
            assert gradient[member].any()
            assert not gradient[others].any()
    assert not torch.equal(values[0], values[1])


def test_an_ensemble_begins_like_separate_layers() -> None:
    """The bound of `nn.Linear`: one over the root of the inputs, for each member."""
    head = ContinuousQ(3, BOX, hidden=[64], ensemble=8)
    first: Any = head.layers[0]
    assert first.weight.abs().max().item() == pytest.approx(5**-0.5, rel=0.02)
    assert first.weight.std().item() == pytest.approx(5**-0.5 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("hidden", [[], [6], [6, 5]])
def test_dueling_values_are_value_plus_centred_advantage(hidden: list[int]) -> None:
    torch.manual_seed(0)
    head = DuelingQ(4, Spec(OBS, spaces.Discrete(3)), hidden=hidden)
    features = torch.randn(7, 4)
    value_of, advantage_of = head.streams.value, head.streams.advantage
    assert value_of is not None
    q, value, advantage = head(features).mean, value_of(features), advantage_of(features)
    torch.testing.assert_close(q.mean(-1, keepdim=True), value)
    torch.testing.assert_close(q - value, advantage - advantage.mean(-1, keepdim=True))
    with torch.no_grad():  # a constant on every advantage changes nothing
        advantage_of[-1].bias.add_(5.0)
    torch.testing.assert_close(head(features).mean, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("action", "sizes"),
    [
        (spaces.Discrete(4), [4]),
        (spaces.MultiDiscrete([2, 5]), [2, 5]),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), [2, 3, 4, 5]),
        (spaces.MultiBinary(3), [2, 2, 2]),
        (spaces.MultiBinary((2, 2)), [2, 2, 2, 2]),
    ],
    ids=str,
)
def test_categorical_policies_begin_close_to_uniform(action: Any, sizes: list[int]) -> None:
    torch.manual_seed(0)
    policy = CategoricalPolicy(8, Spec(OBS, action))(torch.randn(50, 8))
    uniform = float(np.log(sizes).sum())
    assert policy.entropy().mean().item() == pytest.approx(uniform, rel=1e-2)
    drawn = policy.sample(context())
    assert drawn.shape == ((50,) if len(sizes) == 1 else (50, len(sizes)))
    assert (drawn >= 0).all()
    assert (drawn < torch.tensor(sizes)).all() if len(sizes) > 1 else (drawn < sizes[0]).all()


def test_gaussian_policies_begin_at_zero_with_the_given_deviation() -> None:
    torch.manual_seed(0)
    policy = GaussianPolicy(8, BOX, log_std=-1.0)(torch.randn(50, 8))
    assert policy.mode().abs().max() < 0.2
    assert policy.log_std.unique().tolist() == [-1.0]
    assert policy.entropy().shape == (50,)


def test_values_are_numbers_without_a_dimension_of_one() -> None:
    assert Value(8)(torch.randn(50, 8)).shape == (50,)


def test_which_member_learns_from_what_follows_from_the_seed_and_is_saved() -> None:
    """Losses of rows are 0 where a member does not learn from them."""
    rows = torch.arange(400)
    head = {"type": "ensemble_q", "members": 1, "share": 0.5, "huber_delta": 0.0}

    def network(seed: int) -> Network:
        torch.manual_seed(seed)
        spec = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
        return Network(spec, {"q": head})

    def learns(network: Network) -> torch.Tensor:
        now = network(torch.ones(400, 3)).q
        action, far = torch.zeros(400, dtype=torch.int64), torch.full((400,), 100.0)
        loss, _ = now.td_loss(action, far, torch.zeros(400), now, now.best(), rows)
        found: torch.Tensor = loss > 0
        return found

    one, again, other = network(1), network(1), network(2)
    assert torch.equal(learns(one), learns(again))
    assert 0.3 < (learns(one) == learns(other)).float().mean() < 0.7
    other.load_state_dict(one.state_dict())
    assert torch.equal(learns(one), learns(other))
