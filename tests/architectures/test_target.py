"""Slowly moving copies."""

from __future__ import annotations

import copy

import pytest
import torch
from coach.architectures.target import Target
from coach.core.errors import SettingError
from torch import nn


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, value)
    return layer


def weight(target: Target) -> float:
    return float(next(target.network.parameters()).flatten()[0])


def test_copies_every_so_many_updates() -> None:
    online = linear(0.0)
    target, seen = Target(online, every=3), []
    for update in range(1, 8):
        nn.init.constant_(online.weight, float(update))
        target.track(online)
        seen.append(weight(target))
    assert seen == [0, 0, 3, 3, 3, 6, 6]


def test_takes_its_share_of_the_weights() -> None:
    online, target = linear(1.0), Target(linear(0.0), tau=0.25)
    target.track(online)
    assert weight(target) == pytest.approx(0.25)
    target.track(online)
    assert weight(target) == pytest.approx(0.25 + 0.25 * 0.75)


def test_it_follows_whom_it_is_given() -> None:
    target = Target(linear(0.0))
    for online in (linear(1.0), linear(2.0), linear(3.0)):
        target.track(online)
        assert weight(target) == float(online.bias.detach())
    assert [name for name, _ in target.named_children()] == ["network"]


def test_its_copy_follows_the_copy_of_the_network() -> None:
    online = linear(1.0)
    target = Target(online)
    target.track(online)
    other, its_target = copy.deepcopy((online, target))
    nn.init.constant_(other.weight, 5.0)
    its_target.track(other)
    assert (weight(target), weight(its_target)) == (1.0, 5.0)


def test_share_and_cadence_combine() -> None:
    online, target = linear(1.0), Target(linear(0.0), every=2, tau=0.5)
    for _ in range(4):
        target.track(online)
    assert weight(target) == pytest.approx(0.75)


def test_is_a_copy_without_gradients() -> None:
    online = linear(1.0)
    target = Target(online)
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())
    nn.init.zeros_(online.weight)
    assert weight(target) == 1.0
    assert torch.equal(target(torch.ones(1, 2)), torch.tensor([[3.0]]))


def test_the_count_of_updates_is_saved() -> None:
    online = linear(1.0)
    first = Target(linear(0.0), every=3)
    first.track(online), first.track(online)
    second = Target(linear(0.0), every=3)
    second.load_state_dict(first.state_dict())
    second.track(online)
    assert weight(second) == 1.0


@pytest.mark.parametrize("settings", [{"every": 0}, {"tau": 0.0}, {"tau": 1.5}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="every >= 1 and 0 < tau <= 1"):
        Target(linear(0.0), **settings)  # type: ignore[arg-type]
