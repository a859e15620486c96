"""Objectives that differentiate inside: their gradients are those of plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from coach.architectures import onednn
from coach.architectures.network import Network
from coach.core import blas
from coach.core.agent import Agent, Loss, objective
from coach.core.batch import Batch
from coach.core.learner import Learner
from coach.core.spec import Spec
from coach.functional.targets import huber
from coach.optimizers.sgd import SGD
from gymnasium import spaces
from torch import Tensor, nn

SPEC = Spec(spaces.Box(-1, 1, (5,)), spaces.Discrete(3))
ROWS, PENALTY = 6, 7.5


@pytest.fixture(params=["torch", "NumPy", "oneDNN"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on processors where one or the other makes the products."""
    monkeypatch.setattr(blas, "FASTER", request.param == "NumPy")
    monkeypatch.setattr(onednn, "FASTER", request.param == "oneDNN" and onednn.works())


def batches(count: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        obs = torch.randn(ROWS, 5, generator=generator)
        action = torch.randint(3, (ROWS,), generator=generator)
        zeros = torch.zeros(ROWS)
        yield Batch(obs, action, obs.sum(-1), zeros, obs, zeros.bool())


def taken(values: Tensor, action: Tensor) -> Tensor:
    return values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


class Smooth(Agent):
    """Regression on rewards, with a penalty on the slope of the values in the observation."""

    def __init__(self, way: str, **network: Any) -> None:
        super().__init__(SPEC)
        torch.manual_seed(11)
        self.online = Network(SPEC, {"q": "q"}, **network)
        self.way = way

    def value(self, obs: Tensor) -> Tensor:
        values: Tensor = self.online(obs).q.mean.sum(-1)
        return values

    def slope(self, obs: Tensor) -> Tensor:
        if self.way == "torch.func":
            one = torch.func.grad(lambda row: self.value(row.unsqueeze(0)).sum())
            slopes: Tensor = torch.func.vmap(one)(obs)
            return slopes
        obs = obs.detach().requires_grad_()
        return torch.autograd.grad(self.value(obs).sum(), obs, create_graph=True)[0]

    @objective(minimises="online")
    def regression(self, batch: Batch) -> Loss:
        error = taken(self.online(batch.obs).q.mean, batch.action) - batch.reward
        return Loss(huber(error, 0.7) + PENALTY * self.slope(batch.obs).square().sum(-1))


def reference(agent: Smooth, activation: type[nn.Module], batch: Batch) -> list[Tensor]:
    """The same gradients by layers of torch's own, in double precision."""
    parameters = [p.detach().double() for p in agent.online.parameters()]
    layers: list[nn.Module] = []
    for weight in parameters[::2]:
        outputs, inputs = weight.shape
        layers += [nn.Linear(inputs, outputs).double(), activation()]
    network = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), parameters):
            mine.copy_(theirs)
    obs = batch.obs.double().requires_grad_()
    values = network(obs)
    error = taken(values, batch.action) - batch.reward.double()
    loss = nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=0.7)
    (slope,) = torch.autograd.grad(values.sum(), obs, create_graph=True)
    total = (loss + PENALTY * slope.square().sum(-1)).mean()
    found = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, network.parameters())]


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("way", ["torch.autograd", "torch.func"])
@pytest.mark.parametrize("activation", ["default", "tanh", "elu"])
def test_a_penalty_on_slopes_reaches_the_weights(way: str, record: bool, activation: str) -> None:
    wanted = {"default": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}[activation]
    chosen: dict[str, Any] = {"type": "mlp", "hidden": [8, 7]}
    if activation != "default":
        chosen["activation"] = activation
    agent = Smooth(way, embedder=chosen)
    learner = Learner(agent, SGD(lr=0.02), record=record)
    for batch in batches(7):  # by then it is a recording that is run
        theirs = reference(agent, wanted, batch)
        learner.step(batch, 0)
        for mine, gradient in zip(learner.groups["online"].gradients, theirs):
            torch.testing.assert_close(mine.double(), gradient, rtol=1e-3, atol=1e-4)
    if way == "torch.autograd":
        assert bool(learner.recorder.recordings) == record
