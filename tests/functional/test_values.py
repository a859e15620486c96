"""Forms of action values: losses by hand, masks, choices by index and by probability."""

from __future__ import annotations

import math

import pytest
import torch
from coach.functional.scrambled import belongs, scrambled
from coach.functional.values import (
    CategoricalValues,
    EnsembleValues,
    ProposedQuantiles,
    ScalarValues,
    quantile_values,
    value_of,
)

ACTION, REWARD, DISCOUNT = torch.tensor([1]), torch.tensor([1.0]), torch.tensor([0.5])


def test_choices_by_index_and_by_probability() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0]])
    assert value_of(values, torch.tensor([2])).tolist() == [4.0]
    assert value_of(values, torch.tensor([[0.5, 0.25, 0.25]])).tolist() == [2.0]
    spread = torch.stack([values, 10 * values], -1)  # [1, 3, 2]
    assert value_of(spread, torch.tensor([1])).tolist() == [[2.0, 20.0]]
    assert value_of(spread, torch.tensor([[0.5, 0.0, 0.5]])).tolist() == [[2.5, 25.0]]
    never = torch.tensor([[1.0, 2.0, -math.inf]])
    assert value_of(never, torch.tensor([[0.5, 0.5, 0.0]])).tolist() == [1.5]


def test_categorical_loss_by_hand() -> None:
    support = torch.tensor([0.0, 1.0, 2.0])
    now = torch.tensor([[[0.2, 0.3, 0.5], [0.25, 0.25, 0.5]]]).log()
    later = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]).log()
    mean = now.exp() @ support
    values = CategoricalValues(mean, now, support)
    ahead = CategoricalValues(later.exp() @ support, later, support)
    # 2 becomes 1 + 0.5 * 2 = 2; 0 becomes 1.
    loss, surprise = values.td_loss(ACTION, REWARD, DISCOUNT, ahead, torch.tensor([1]))
    assert loss.tolist() == pytest.approx([-math.log(0.5)])
    assert surprise.tolist() == pytest.approx([-math.log(0.5)])
    both = torch.tensor([[0.5, 0.5]])
    loss, surprise = values.td_loss(ACTION, REWARD, DISCOUNT, ahead, both)
    entropy = math.log(2)
    assert loss.tolist() == pytest.approx([-0.5 * (math.log(0.25) + math.log(0.5))])
    assert surprise.tolist() == pytest.approx([loss.item() - entropy])


def test_quantile_loss_takes_the_target_apart() -> None:
    now = quantile_values(torch.tensor([[[0.0, 0.0], [1.0, 3.0]]]))
    later = quantile_values(torch.tensor([[[2.0, 4.0], [0.0, 0.0]]]))
    loss, surprise = now.td_loss(ACTION, REWARD, DISCOUNT, later, torch.tensor([0]))
    # Targets 2 and 3 for predictions 1 and 3 at 0.25 and 0.75: errors 1, 2 and -1, 0.
    assert loss.tolist() == pytest.approx([0.25 * (0.5 + 1.5) / 2 + 0.25 * 0.5 / 2])
    assert surprise.tolist() == pytest.approx([0.5])


def test_proposed_fractions_move_as_the_paper_says() -> None:
    """The gradient with respect to tau_i is 2 F(tau_i) - F(tau^_i) - F(tau^_(i-1))."""
    share = torch.tensor([[0.25, 0.25, 0.5]])
    ends = share.cumsum(-1).requires_grad_()
    quantile = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]]])
    values = ProposedQuantiles(
        mean=(quantile * share[:, None]).sum(-1),
        quantile=quantile,
        fraction=ends.detach() - share / 2,
        share=share,
        ends=ends,
        between=torch.tensor([[[0.0, 0.0], [1.7, 2.5]]]),
        bonus=torch.tensor([0.0]),
    )
    loss, _ = values.td_loss(ACTION, REWARD, DISCOUNT, values, torch.tensor([1]))
    loss.sum().backward()
    assert ends.grad is not None
    wanted = [2 * 1.7 - 1 - 2, 2 * 2.5 - 2 - 4, 0.0]
    assert ends.grad[0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert values.mean[0, 1].item() == pytest.approx(0.25 + 0.5 + 2.0)


class TestEnsemble:
    every = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[4.0, 2.0], [1.0, 5.0]]])  # [E, B, A]

    key = torch.tensor(7)

    def values(self, share: float = 1.0) -> EnsembleValues:
        mean = self.every.mean(0)
        return EnsembleValues(mean, self.every, huber_delta=0.0, share=share, key=self.key)

    def test_every_member_has_its_own_target(self) -> None:
        now = self.values()
        action, reward = torch.tensor([0, 1]), torch.tensor([1.0, 0.0])
        discount = torch.tensor([0.5, 0.0])
        loss, surprise = now.td_loss(action, reward, discount, now, now.best())
        # Member 1: 1 - (1 + 0.5 * 2) = -1 and 0 - 0; member 2: 4 - (1 + 0.5 * 4) = 1 and 5 - 0.
        assert loss.tolist() == pytest.approx([(0.5 + 0.5) / 2, 12.5 / 2])
        assert surprise.tolist() == pytest.approx([1.0, 2.5])

    def test_deviation(self) -> None:
        assert self.values().deviation.tolist() == [[1.5, 0.0], [1.0, 2.5]]

    def test_members_learn_from_their_share_alone(self) -> None:
        rows = torch.arange(10_000)
        mine = belongs(rows, 5, 0.3, self.key)
        assert mine.mean().item() == pytest.approx(0.3, abs=0.01)
        assert torch.equal(mine, belongs(rows, 5, 0.3, self.key))  # the same in every epoch
        others = belongs(rows, 5, 0.3, torch.tensor(1_234_567_890))  # independent with another key
        assert torch.corrcoef(torch.cat([mine, others])).fill_diagonal_(0).abs().max() < 0.04
        now, share = self.values(0.5), belongs(rows[:2], 2, 0.5, self.key)
        action, nothing = torch.tensor([0, 1]), torch.zeros(2)
        loss, _ = now.td_loss(action, nothing, nothing, now, now.best(), rows[:2])
        taken = torch.tensor([[1.0, 0.0], [4.0, 5.0]])
        assert torch.allclose(loss, (0.5 * taken**2 * share).mean(0))


def test_scrambled_numbers_look_uniform() -> None:
    numbers = scrambled(torch.arange(100_000)) / 2**31
    counts = torch.histc(numbers, 20, 0, 1)
    assert counts.min() > 4_700
    assert counts.max() < 5_300


@pytest.mark.parametrize(
    "values",
    [
        ScalarValues(torch.tensor([[1.0, 9.0, 3.0]])),
        quantile_values(torch.tensor([[[1.0, 1.0], [9.0, 9.0], [3.0, 3.0]]])),
        EnsembleValues(torch.tensor([[1.0, 9.0, 3.0]]), torch.tensor([[[1.0, 9.0, 3.0]]])),
    ],
)
def test_what_is_not_allowed_is_never_best(values: ScalarValues) -> None:
    allowed = torch.tensor([[True, False, True]])
    masked = values.masked(allowed)
    assert masked.best().flatten().tolist() == [2]
    assert masked.mean.tolist() == [[1.0, -math.inf, 3.0]]
    assert masked.allowed is allowed
    action = torch.tensor([0])
    loss, surprise = masked.td_loss(action, REWARD, DISCOUNT, masked, masked.best())
    wanted, _ = values.td_loss(action, REWARD, DISCOUNT, values, masked.best())
    assert torch.equal(loss, wanted)
    assert torch.isfinite(surprise).all()
