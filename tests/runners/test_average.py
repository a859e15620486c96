"""Evaluations play an average of the policy's weights, and training does not notice it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fingerprint
import pytest
import torch
from coach.core.polyak import PolicyAverage
from coach.runners.replaying import evaluate_run
from coach.runners.training import Run
from tiny_settings import TINY
from torch import nn

Launch = Callable[..., Run]


class Learned(nn.Module):
    """A policy of one number, beside a number that is not the policy's."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.critic = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def learn(self, number: float) -> None:
        for module in (self.policy, self.critic):
            nn.init.constant_(module.weight, number)


def averages(numbers: list[float], over: int) -> tuple[PolicyAverage, Learned]:
    """The average after updates that led to ``numbers``, each eight updates after the last."""
    agent = Learned()
    average = PolicyAverage(agent, over)  # type: ignore[arg-type]
    for place, number in enumerate(numbers):
        for update in range(8 * place + 1, 8 * place + 9):
            agent.learn(number if update % 8 == 0 else -99.0)
            average.update(update)
    return average, agent


def test_it_begins_as_the_mean() -> None:
    average, _ = averages([1.0, 2.0, 6.0], over=10_000)
    assert average.weights()["policy.weight"].item() == pytest.approx(3.0)


def test_it_goes_on_as_an_exponential_average() -> None:
    numbers = [1.0, 3.0, 2.0, 10.0, -4.0]
    average, _ = averages(numbers, over=16)  # eight of sixteen: half of each
    expected = numbers[0]
    for number in numbers[1:]:
        expected = (expected + number) / 2
    assert average.weights()["policy.weight"].item() == pytest.approx(expected)


def test_only_the_policy_is_averaged_and_only_for_a_while() -> None:
    average, agent = averages([1.0, 3.0], over=10_000)
    assert set(average.weights()) == {"policy.weight"}
    with average.in_place():
        assert (agent.policy.weight.item(), agent.critic.weight.item()) == (2.0, 3.0)
    assert agent.policy.weight.item() == 3.0


@pytest.fixture
def averaged() -> dict[str, Any]:
    settings = copy.deepcopy(TINY["dqn"])
    settings["evaluation"] |= {"average_over": 40, "background": False}
    return settings


def test_training_does_not_notice_it(averaged: dict[str, Any], launch: Launch) -> None:
    whole = launch(averaged)
    whole.train()
    del averaged["evaluation"]["average_over"]
    plain = launch(averaged)
    plain.train()
    for one, two in zip(whole.experiment.agent.parameters(), plain.experiment.agent.parameters()):
        assert torch.equal(one, two)
    tables = [(run.folder / "progress.csv").read_bytes() for run in (whole, plain)]
    assert tables[0] == tables[1]
    state, newest = whole.experiment.learner.evaluated_state(), plain.experiment.agent.state_dict()
    differing = {name for name in newest if not torch.equal(state[name], newest[name])}
    assert differing == {
        name for name, _ in plain.experiment.agent.online.named_parameters("online")
    }


def test_an_interrupted_run_goes_on_with_its_average(
    averaged: dict[str, Any], launch: Launch
) -> None:
    whole = launch(averaged)
    whole.train()
    part = launch(averaged)
    part.clock.limit = 333
    part.train()
    rest = launch(averaged, part.folder)
    rest.train()
    assert fingerprint.of_run(rest) == fingerprint.of_run(whole)


def test_what_is_kept_and_played_is_the_average(averaged: dict[str, Any], launch: Launch) -> None:
    averaged["run"]["steps"] = averaged["evaluation"]["every"]  # so that best and last are the same
    run = launch(averaged)
    run.train()
    best, _ = evaluate_run(Path(run.folder), run.experiment.plain, 5, print)
    last, _ = evaluate_run(Path(run.folder), run.experiment.plain, 5, print, last=True)
    assert [episode.value for episode in best] == [episode.value for episode in last]
    run.experiment.agent.load_state_dict(run.experiment.learner.evaluated_state())
    played = [episode.value for episode in run.evaluate(5, "evaluate")]
    assert played == [episode.value for episode in last]
