"""Parameters that an objective names and never reaches are reported once, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from coach.architectures.network import Network
from coach.core.agent import Agent, Loss, objective
from coach.core.batch import Batch
from coach.core.errors import CoachError, SettingError
from coach.core.learner import Learner
from coach.core.spec import Spec
from coach.optimizers.adam import Adam
from gymnasium import spaces
from torch import Tensor, nn

SPEC = Spec(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
ROWS = 5


def batch() -> Batch:
    obs, zeros = torch.linspace(-1, 1, ROWS * 4).view(ROWS, 4), torch.zeros(ROWS)
    return Batch(obs, zeros, obs.sum(-1), zeros, obs, zeros.bool())


class Reader(Agent):
    """Regression by what ``read`` makes of the network's outputs.

    Args:
        read: the agent and outputs to ``[B]``.
    """

    def __init__(self, read: Callable[[Reader, Any], Tensor]) -> None:
        super().__init__(SPEC)
        self.online = Network(SPEC, {"q": "q", "spare": "dueling_q"})
        self.scale, self.read, self.calls = nn.Parameter(torch.ones(())), read, 0

    @objective(minimises=("online", "scale"))
    def regression(self, batch: Batch) -> Loss:
        self.calls += 1
        return Loss((self.read(self, self.online(batch.obs)) - batch.reward).square())


def reports(agent: Agent, updates: int, record: bool) -> list[str]:
    said: list[str] = []
    learner = Learner(agent, Adam(), record=record, say=said.append)
    for _ in range(updates):
        learner.step(batch(), 0)
    return said


@pytest.mark.parametrize("record", [True, False])
def test_a_part_that_is_never_reached_is_reported_once(record: bool) -> None:
    said = reports(Reader(lambda agent, out: out.q.mean.sum(-1)), 20, record)
    assert len(said) == 1
    for words in ("'regression'", "'online'", "online.heads.spare", "scale", "requires_grad_"):
        assert words in said[0]
    assert "heads.q" not in said[0]
    assert "trunks" not in said[0]


def test_single_parameters_are_named() -> None:
    def read(agent: Reader, out: Any) -> Tensor:
        named = agent.online.named_parameters()
        bias = next(p for name, p in named if name.endswith("linears.0.bias"))
        values: Tensor = out.q.mean.sum(-1).detach() + bias.sum() * agent.scale
        return values

    (said,) = reports(Reader(read), 5, record=False)
    assert "linears.0.weight" in said
    assert "linears.0.bias" not in said


@pytest.mark.parametrize("record", [True, False])
def test_frozen_and_reached_parameters_are_no_finding(record: bool) -> None:
    agent = Reader(lambda agent, out: out.q.mean.sum(-1) * agent.scale)
    agent.online.heads["spare"].requires_grad_(False)
    assert not reports(agent, 20, record)
    zero = Reader(lambda agent, out: out.q.mean.sum(-1) * agent.scale + 0 * out.spare.mean.sum(-1))
    assert not reports(zero, 20, record)


def test_parts_that_take_turns_are_no_finding() -> None:
    def read(agent: Reader, out: Any) -> Tensor:
        now = (out.q, out.spare)[agent.calls // 2 % 2]
        values: Tensor = now.mean.sum(-1) * agent.scale
        return values

    assert not reports(Reader(read), 130, record=False)


def test_parts_that_take_turns_while_another_is_never_reached() -> None:
    def read(agent: Reader, out: Any) -> Tensor:
        values: Tensor = (out.q, out.spare)[agent.calls % 2].mean.sum(-1)
        return values

    (said,) = reports(Reader(read), 130, record=False)
    assert "not reach scale." in said


def test_without_a_listener_it_is_a_warning() -> None:
    learner = Learner(Reader(lambda agent, out: out.q.mean.sum(-1)), Adam())
    learner.step(batch(), 0)
    learner.step(batch(), 0)
    with pytest.warns(UserWarning, match=r"online\.heads\.spare"):
        learner.step(batch(), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.step(batch(), 0)


def test_a_loss_without_gradient_is_refused_by_name() -> None:
    learner = Learner(Reader(lambda agent, out: out.q.mean.sum(-1).detach()), Adam())
    with pytest.raises(CoachError, match=r"'regression' of Reader.*without gradient"):
        learner.step(batch(), 0)


def test_an_objective_that_nothing_can_learn_from_is_refused() -> None:
    agent = Reader(lambda agent, out: out.q.mean.sum(-1))
    agent.requires_grad_(False)
    with pytest.raises(SettingError, match="'regression' minimises online and scale"):
        Learner(agent, Adam())
