"""From losses to steps: flat parameters, weights, cadence, clipping, learning rates."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from coach.core.agent import Agent, Loss, objective
from coach.core.batch import Batch
from coach.core.errors import CoachError, SettingError
from coach.core.flat import FlatParameters
from coach.core.learner import MEASURE_EVERY, Learner
from coach.core.spec import Spec
from coach.functional.schedules import Linear
from coach.optimizers.adam import Adam
from coach.optimizers.rmsprop import RMSProp
from coach.optimizers.sgd import SGD
from gymnasium import spaces
from torch import nn

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))


def batch(weight: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(8, 3, generator=generator)
    zeros = torch.zeros(8)
    return Batch(obs, zeros, obs.sum(-1), zeros, obs, zeros.bool(), weight=weight)


class Two(Agent):
    """Two modules, two objectives of different cadence; the second reads the first."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 1), nn.Linear(3, 1)
        self.called = 0

    @objective(minimises="first")
    def one(self, batch: Batch) -> Loss:
        error = self.first(batch.obs).squeeze(-1) - batch.reward
        return Loss(error.square(), priority=error.detach().abs())

    @objective(minimises="second", every=3)
    def two(self, batch: Batch) -> Loss:
        error = self.second(batch.obs).squeeze(-1) - self.first(batch.obs).squeeze(-1)
        return Loss(error.square(), metrics=lambda: {"error": error.mean()})

    def after_update(self) -> None:
        self.called += 1


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def test_parameters_are_views_that_keep_their_values() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last), nn.Linear(4, 7))  # fmt: skip
    before = copy.deepcopy(network.state_dict())
    parameters = list(network.parameters())
    flat = FlatParameters(parameters)
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert [id(p) for p in network.parameters()] == [id(p) for p in parameters]
    flat.vector.data.zero_()
    assert all((p == 0).all() for p in network.parameters())
    assert parameters[0].is_contiguous(memory_format=torch.channels_last)
    assert all(p.data_ptr() % 64 == flat.vector.data_ptr() % 64 for p in parameters)


def test_absent_gradients_are_zero() -> None:
    flat = FlatParameters([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))])
    flat.set_gradients([torch.ones(3), torch.ones(2)])
    flat.set_gradients([None, torch.full((2,), 5.0)])
    assert flat.gradients[0].tolist() == [0, 0, 0]
    assert flat.gradients[1].tolist() == [5, 5]


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_equals_torch(limit: float) -> None:
    shapes = [(4, 3), (7,), (2, 5)]
    theirs = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    gradients = [torch.randn(shape) for shape in shapes]
    for parameter, gradient in zip(theirs, gradients):
        parameter.grad = gradient.clone()
    norm = nn.utils.clip_grad_norm_(theirs, limit)
    flat = FlatParameters([nn.Parameter(torch.zeros(shape)) for shape in shapes])
    flat.set_gradients(gradients)
    square = flat.clip(limit)
    assert square is not None
    torch.testing.assert_close(square.sqrt(), norm)
    for mine, parameter in zip(flat.gradients, theirs):
        torch.testing.assert_close(mine, parameter.grad)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adam(lr=0.1), lambda p: torch.optim.Adam(p, lr=0.1)),
        (Adam(lr=0.1, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1)),
        (SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (RMSProp(lr=0.1), lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.95, eps=1e-2)),
        (
            RMSProp(lr=0.01, centered=True),
            lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.95, eps=1e-2, centered=True),
        ),
    ],
)
def test_steps_equal_torch_on_separate_parameters(ours: Any, theirs: Any) -> None:
    agent, reference = Two(), Two()
    learner = Learner(agent, ours)
    optimizer = theirs(reference.first.parameters())
    for _ in range(5):
        learner.step(batch(), 0)
        optimizer.zero_grad()
        reference.one(batch()).value.mean().backward()
        optimizer.step()
    for mine, wanted in zip(agent.first.parameters(), reference.first.parameters()):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_never_changes_has_a_centred_square_of_zero_and_no_less() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1_000))
    parameter.grad = torch.linspace(-3, 3, 1_000)
    stepper = RMSProp(lr=0.1, alpha=0.9, centered=True).build(parameter)
    for _ in range(400):  # until rounding alone is left of the difference
        stepper.step(1e-3)
    assert parameter.isfinite().all()
    left = stepper.slots["square"] - stepper.slots["mean"].square()
    assert (left < 0).any()  # what a root would make nothing of


def test_only_named_modules_move_in_their_cadence() -> None:
    agent = Two()
    learner = Learner(agent, SGD(lr=0.1))
    moved = []
    for _ in range(6):
        before = weights(agent.second)
        first = weights(agent.first)
        learner.step(batch(), 0)
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, weights(agent.second))))
        assert any(not torch.equal(a, b) for a, b in zip(first, weights(agent.first)))
    assert moved == [True, False, False, True, False, False]
    assert agent.called == learner.version == 6


def test_the_mean_is_weighted() -> None:
    weight = torch.tensor([2.0, 0, 0, 0, 0, 0, 0, 0])
    agent, reference = Two(), Two()
    Learner(agent, SGD(lr=0.1)).step(batch(weight), 0)
    loss = reference.one(batch()).value[0] * 2 / 8
    (gradient, _) = torch.autograd.grad(loss, list(reference.first.parameters()))
    torch.testing.assert_close(agent.first.weight, reference.first.weight - 0.1 * gradient)


def test_priorities_that_nobody_wants_are_left_out() -> None:
    learner, other = Learner(Two(), SGD(lr=0.1), priorities=False), Learner(Two(), SGD(lr=0.1))
    for _ in range(4):
        assert learner.step(batch(), 0).priority is None
        assert other.step(batch(), 0).priority is not None
    assert all(map(torch.equal, weights(learner.agent), weights(other.agent)))


def test_parts_of_an_agent_are_at_hand_and_may_be_exchanged() -> None:
    agent = Two()
    assert vars(agent)["first"] is agent.first
    agent.first = nn.Linear(3, 1)
    assert vars(agent)["first"] is dict(agent.named_children())["first"] is agent.first
    assert len(list(agent.parameters())) == 4
    other = copy.deepcopy(agent)
    assert vars(other)["first"] is dict(other.named_children())["first"] is not agent.first
    nn.init.zeros_(other.first.weight)
    assert agent.first.weight.any()
    agent.first = None  # type: ignore[assignment]
    del agent.second
    assert agent.first is None
    assert not hasattr(agent, "second")


def test_priorities_and_metrics_come_back() -> None:
    learner = Learner(Two(), SGD(lr=0.0))
    updates = [learner.step(batch(), 0) for _ in range(MEASURE_EVERY * 3 + 1)]
    assert all(update.priority is not None for update in updates)
    assert [bool(update.metrics) for update in updates[: MEASURE_EVERY + 1]] == [
        True,
        *[False] * (MEASURE_EVERY - 1),
        True,
    ]
    assert set(updates[0].metrics) == {
        "loss/one",
        "loss/two",
        "grad_norm/first",
        "grad_norm/second",
        "error",
    }
    assert not any(metric.requires_grad for metric in updates[0].metrics.values())


def test_learning_rates_follow_their_schedules_and_overrides() -> None:
    agent = Two()
    learner = Learner(agent, SGD(lr=Linear(1.0, 0.0, 100)), {"second": SGD(lr=0.25)})
    assert learner.learning_rates(50) == {"first": 0.5, "second": 0.25}
    before = weights(agent.first)
    learner.step(batch(), 100)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(agent.first)))


def test_state_continues_identically() -> None:
    first = Learner(Two(), Adam(lr=0.01), seed=3)
    for _ in range(4):
        first.step(batch(), 0)
    second = Learner(Two(), Adam(lr=0.01), seed=9)
    second.load_state_dict({name: copy.deepcopy(v) for name, v in first.state_dict().items()})
    for learner in (first, second):
        learner.step(batch(), 0)
    assert first.version == second.version
    for mine, theirs in zip(first.agent.parameters(), second.agent.parameters()):
        assert torch.equal(mine, theirs)
    assert torch.equal(first.agent.rng.get_state(), second.agent.rng.get_state())


class Shaped(Two):
    """Its first objective returns another shape than one number per row."""

    def __init__(self, value: Any, priority: Any) -> None:
        super().__init__()
        self.value, self.priority = value, priority

    @objective(minimises="first")
    def one(self, batch: Batch) -> Loss:
        error = self.first(batch.obs).squeeze(-1) - batch.reward
        return Loss(self.value(error.square()), self.priority(error.detach().abs()))


@pytest.mark.parametrize(
    ("value", "priority", "words"),
    [
        (lambda rows: rows[:, None], lambda rows: None, r"value has shape \[8, 1\].*rows \[8\]"),
        (lambda rows: rows.mean(), lambda rows: rows, r"value has shape \[\].*rows \[8\]"),
        (lambda rows: rows[:1], lambda rows: rows, r"value has shape \[1\]"),
        (lambda rows: rows, lambda rows: rows[:, None], r"priority has shape \[8, 1\]"),
        (lambda rows: rows, lambda rows: rows.mean(), r"priority has shape \[\]"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_is_one_number_per_row(
    value: Any, priority: Any, words: str, weighted: bool
) -> None:
    learner = Learner(Shaped(value, priority), SGD(lr=0.1))
    before = weights(learner.agent)
    with pytest.raises(CoachError, match=f"Objective 'one' of Shaped .*{words}"):
        learner.step(batch(torch.ones(8) if weighted else None), 0)
    assert all(map(torch.equal, before, weights(learner.agent)))


class Unknown(Two):
    @objective(minimises="thrid")
    def three(self, batch: Batch) -> Loss:
        return Loss(batch.reward)


class Shared(Two):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.ModuleList([self.first])

    @objective(minimises="both")
    def three(self, batch: Batch) -> Loss:
        return Loss(batch.reward)


class Empty(Agent):
    pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Unknown, "minimises 'thrid'"),
        (Shared, "share parameters"),
        (lambda: Empty(SPEC), "has no objective"),
    ],
)
def test_impossible_agents_are_refused(make: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Learner(make(), SGD())


def test_unknown_override_is_refused() -> None:
    with pytest.raises(SettingError, match="Did you mean 'second'"):
        Learner(Two(), SGD(), {"secnd": SGD()})
