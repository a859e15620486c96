"""Parameters in one vector: whatever their shapes, nothing but their place changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.core.agent import Agent, Loss, objective
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.flat import FlatParameters, flat_groups
from coach.core.learner import Learner
from coach.core.registry import entries
from coach.core.schema import build_part
from coach.core.spec import Spec
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

SHAPES = st.lists(
    st.lists(st.integers(1, 5), max_size=4).map(tuple), min_size=1, max_size=6
)  # scalars and picture kernels included
SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
OPTIMIZERS = [entry.name for entry in entries("optimizer")]


@given(SHAPES, st.booleans(), st.integers(0, 1000))
def test_values_shapes_and_identity_stay(
    shapes: list[tuple[int, ...]], channels_last: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    if channels_last:
        for parameter in parameters:
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
    before = [p.detach().clone() for p in parameters]
    flat = FlatParameters(parameters)
    for parameter, value, gradient in zip(parameters, before, flat.gradients):
        assert torch.equal(parameter, value)
        assert gradient.shape == parameter.shape
        assert parameter.untyped_storage().data_ptr() == flat.vector.untyped_storage().data_ptr()
    assert flat.vector.grad is flat.gradient
    # A change of the whole reaches the parts, and the other way round.
    with torch.no_grad():
        flat.vector.mul_(2)
        assert all(torch.equal(p, 2 * value) for p, value in zip(parameters, before))
        parameters[0].fill_(7)
    assert (flat.vector == 7).sum() >= parameters[0].numel()


@given(SHAPES, st.data())
def test_gradients_and_clipping_equal_torch(
    shapes: list[tuple[int, ...]], data: st.DataObject
) -> None:
    torch.manual_seed(0)
    absent = data.draw(st.lists(st.booleans(), min_size=len(shapes), max_size=len(shapes)))
    limit = data.draw(st.floats(0.01, 100))
    gradients = [None if skip else torch.randn(s) for s, skip in zip(shapes, absent)]
    flat = FlatParameters([nn.Parameter(torch.zeros(shape)) for shape in shapes])
    flat.set_gradients([torch.full(shape, 9.0) for shape in shapes])  # must leave nothing behind
    flat.set_gradients(gradients)
    theirs = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for parameter, gradient in zip(theirs, gradients):
        parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient.clone()
    norm = nn.utils.clip_grad_norm_(theirs, limit)
    assert flat.clip(None) is None
    torch.testing.assert_close(flat.square(), norm.square())
    torch.testing.assert_close(flat.clip(limit), norm.square())
    for mine, parameter in zip(flat.gradients, theirs):
        torch.testing.assert_close(mine, parameter.grad)
    assert float(flat.gradient.norm()) <= limit * (1 + 1e-5)


class Steep(Agent):
    """A loss with a slope of 1000, over a module, a bare parameter and something frozen."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        torch.manual_seed(0)
        self.layer, self.offset = nn.Linear(3, 1), nn.Parameter(torch.zeros(()))
        self.frozen = nn.Linear(3, 1).requires_grad_(False)

    @objective(minimises=("layer", "offset", "frozen"))
    def slope(self, batch: Batch) -> Loss:
        return Loss(1000 * (self.layer(batch.obs).squeeze(-1) + self.offset))


def batch() -> Batch:
    ones = torch.ones(8)
    return Batch(torch.ones(8, 3), ones, ones, ones, torch.ones(8, 3), ones.bool())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_clips_the_gradient_of_each_module(name: str) -> None:
    made: Any = build_part("optimizer", {"type": name, "lr": 0.0, "max_grad_norm": 0.5}).value
    learner = Learner(Steep(), made)
    norms = learner.step(batch(), 0).metrics
    # Three weights and a bias, and the offset alone: before clipping.
    assert float(norms["grad_norm/layer"]) == pytest.approx(2000, rel=1e-4)
    assert float(norms["grad_norm/offset"]) == pytest.approx(1000, rel=1e-4)
    for group in learner.groups.values():
        assert float(group.gradient.norm()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_frozen_stays_and_a_bare_parameter_moves(name: str) -> None:
    agent = Steep()
    learner = Learner(agent, build_part("optimizer", {"type": name, "lr": 0.1}).value)
    frozen = agent.frozen.weight.clone()
    before = agent.offset.item()
    learner.step(batch(), 0)
    assert set(learner.steppers) == {"layer", "offset"}
    assert torch.equal(agent.frozen.weight, frozen)
    assert agent.offset.item() < before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_of_zero_moves_nothing(name: str) -> None:
    settings: Any = {"type": name, "lr": {"start": 1.0, "end": 0.0, "steps": 10}}
    agent = Steep()
    learner = Learner(agent, build_part("optimizer", settings).value)
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    learner.step(batch(), 10)
    assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())
    learner.step(batch(), 9)
    assert not all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loaded_state_is_a_copy(name: str) -> None:
    """Two learners that once shared a state go on apart."""
    settings: Any = {"type": name, "lr": 0.1}
    if name != "adam":
        settings["momentum"] = 0.9
    learners = [Learner(Steep(), build_part("optimizer", settings).value) for _ in range(2)]
    learners[0].step(batch(), 0)
    learners[1].load_state_dict(learners[0].state_dict())
    kept = {k: v.clone() for k, v in learners[1].state_dict().items() if torch.is_tensor(v)}
    learners[0].step(batch(), 0)
    for key, value in kept.items():
        assert torch.equal(learners[1].state_dict()[key], value), key


def test_parameters_of_several_types_are_refused_and_keep_theirs() -> None:
    agent = nn.ModuleDict({"mixed": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())})
    with pytest.raises(SettingError, match=r"'mixed' are of types torch.float32 and torch.float64"):
        flat_groups(agent, ["mixed"])
    assert agent["mixed"][1].weight.dtype == torch.float64
