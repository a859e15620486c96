"""IQN's draws (arXiv:1806.06923): of a prediction, of its target, and of what chooses an action."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from coach.agents.dqn import DQN
from coach.core.batch import Batch
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.core.stream import drawing_from
from coach.functional.values import DrawnQuantiles
from gymnasium import spaces
from torch import Tensor

SPEC = Spec(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))


class Draws:
    """Notes every draw; the quantile of action ``a`` at ``tau`` is ``slope[a] * tau``."""

    def __init__(self, slope: list[float], seed: int = 0) -> None:
        self.slope = torch.tensor(slope, requires_grad=True)
        self.rng = torch.Generator().manual_seed(seed)
        self.fractions: list[Tensor] = []

    def __call__(self, count: int) -> tuple[Tensor, Tensor]:
        fraction = torch.rand(4, count, generator=self.rng)
        self.fractions.append(fraction)
        return self.slope[None, :, None] * fraction[:, None, :], fraction


def test_choices_and_targets_are_independent_draws_of_their_own_size() -> None:
    draws = Draws([1.0, 2.0])
    values = DrawnQuantiles(draws, samples=8, policy_samples=5)
    assert draws.fractions == []  # nothing is drawn that nobody asks for
    best = values.best()
    assert [f.shape[1] for f in draws.fractions] == [5]
    torch.testing.assert_close(values.policy_mean[:, 1], 2 * draws.fractions[0].mean(-1))
    mean = values.mean
    assert [f.shape[1] for f in draws.fractions] == [5, 8]
    torch.testing.assert_close(mean[:, 1], 2 * draws.fractions[1].mean(-1))
    assert torch.equal(values.quantile[:, 0], draws.fractions[1])
    assert torch.equal(values.fraction, draws.fractions[1])
    assert torch.equal(values.best(), best)
    assert len(draws.fractions) == 2  # each once at most
    assert values.quantile.requires_grad
    assert not values.policy_mean.requires_grad


def test_quantiles_have_a_gradient_whoever_asks_first() -> None:
    values = DrawnQuantiles(Draws([1.0, 2.0]), 8, 5)
    with torch.no_grad():
        assert values.mean.shape == (4, 2)
    assert values.quantile.requires_grad


def test_what_is_not_allowed_is_never_chosen() -> None:
    allowed = torch.tensor([[True, False, True]] * 4)
    values = DrawnQuantiles(Draws([1.0, 9.0, 2.0]), 8, 5).masked(allowed)
    assert values.best().tolist() == [2] * 4
    for mean in (values.mean, values.policy_mean):
        assert bool((mean[:, 1] == -math.inf).all())
        assert bool(mean[:, ::2].isfinite().all())


def agent_of(**head: Any) -> DQN:
    torch.manual_seed(0)
    network = {
        "embedder": {"type": "mlp", "hidden": [8]},
        "heads": {"q": {"type": "implicit_quantile_q", **head}},
    }
    settings = {"type": "dqn", "double": False, "network": network}
    agent: DQN = build_part("agent", settings, spec=SPEC).value
    return agent


@pytest.mark.parametrize("double", [False, True])
def test_a_maximum_of_noise_is_not_bootstrapped(double: bool) -> None:
    """All actions are worth the same on average, so the mean target must be that, too.

    Choosing by the draws that are bootstrapped gives the mean of a maximum instead.
    """
    rows = 4_000
    agent = agent_of(samples=1, policy_samples=1)
    agent.decoupled = double
    obs = torch.zeros(rows, 2)
    batch = Batch(
        obs=obs,
        action=torch.zeros(rows, dtype=torch.int64),
        reward=torch.zeros(rows),
        discount=torch.ones(rows),
        next_obs=obs,
        boundary=torch.zeros(rows, dtype=torch.bool),
    )
    for network in (agent.online, agent.target.network):
        head: Any = network.heads["q"]  # type: ignore[union-attr, index]

        def independent(features: Tensor, fraction: Tensor) -> Tensor:
            """Quantiles of a uniform return, at fractions that differ from action to action."""
            return torch.stack([(fraction + shift) % 1.0 for shift in (0.0, 1 / 3, 2 / 3)], 1)

        head.function.forward = independent
    stream = torch.Generator().manual_seed(0)
    targets = []

    def noted(values: Any, action: Tensor, reward: Tensor, discount: Tensor, *rest: Any) -> Any:
        later, chosen = rest[:2]
        targets.append(later.mean.gather(1, chosen[:, None]))
        return torch.zeros(rows), torch.zeros(rows)

    with pytest.MonkeyPatch.context() as patch, drawing_from(stream):
        patch.setattr(DrawnQuantiles, "td_loss", noted)
        agent.temporal_difference(batch)
    # The mean of a maximum of three such draws is 5/6.
    assert float(targets[0].mean()) == pytest.approx(0.5, abs=0.03)


def test_acting_draws_for_the_choice_alone() -> None:
    agent = agent_of(samples=3, policy_samples=7)
    with torch.inference_mode(), drawing_from(torch.Generator().manual_seed(1)):
        values = agent.online(torch.zeros(5, 2)).q
    assert values.quantile.shape == (5, 3, 7)
    assert torch.equal(values.mean, values.policy_mean)


def test_evaluation_takes_fractions_at_equal_distances() -> None:
    agent = agent_of(samples=2, policy_samples=4)
    with torch.inference_mode(), drawing_from(None):
        values = agent.online(torch.zeros(1, 2)).q
    assert values.fraction.tolist() == [[0.125, 0.375, 0.625, 0.875]]
