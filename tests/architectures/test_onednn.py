"""Products by oneDNN are the products, and chosen by processor and shape alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.architectures import onednn
from coach.architectures.dense import Dense
from coach.architectures.linear import product
from coach.core import blas
from coach.core.dispatch import Work
from coach.core.recorder import Recorder
from torch import Tensor

pytestmark = pytest.mark.skipif(not onednn.works(), reason="this torch is built without oneDNN")


@pytest.fixture(params=["all", "as chosen"], autouse=True)
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where it is faster: for all products, or those that are worth it."""
    monkeypatch.setattr(onednn, "FASTER", True)
    monkeypatch.setattr(blas, "FASTER", False)
    if request.param == "all":
        monkeypatch.setattr(onednn, "_PRODUCT", 1)
        monkeypatch.setattr(onednn, "_TANH", 1)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    linear = onednn.linear

    def noted(*args: Any) -> Tensor:
        calls.append(args)
        return linear(*args)

    monkeypatch.setattr(onednn, "linear", noted)
    return calls


def close(mine: Any, wanted: Any) -> None:
    torch.testing.assert_close(mine, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", ["none", "relu", "tanh"])
def test_one_layer_is_what_torch_makes_of_it(activation: Any) -> None:
    inputs, weight, bias = torch.randn(70, 33), torch.randn(19, 33), torch.randn(19)
    act: Any = {"none": lambda x: x, "relu": torch.relu, "tanh": torch.tanh}[activation]
    close(onednn.linear(inputs, weight, bias, activation), act(inputs @ weight.t() + bias))


def test_recordings_make_the_same_bits(counted: list[Any]) -> None:
    dense, recorder = Dense(300, [256, 256], "tanh"), Recorder()
    parameters = list(dense.parameters())

    def gradients(inputs: Any) -> list[Tensor]:
        return list(torch.autograd.grad(dense(inputs[0]).square().sum(), parameters))

    for _ in range(6):
        x = torch.randn(128, 300)
        found = recorder("gradients", gradients, [x])
        for one, other in zip(found, gradients([x])):
            assert torch.equal(one, other)
    assert recorder.recordings
    assert not recorder.refused
    assert counted


def test_their_work_is_counted(counted: list[Any]) -> None:
    with Work() as work:
        product(torch.randn(300, 256), torch.randn(256, 200))
    assert len(counted) == 1
    assert work.operations == 2 * 300 * 256 * 200


def test_small_ones_and_other_numbers_are_left_to_torch(counted: list[Any]) -> None:
    product(torch.randn(300, 256).double(), torch.randn(256, 256).double())
    Dense(256, [256]).double()(torch.randn(300, 256).double())
    assert counted == []
    Dense(256, [256])(torch.randn(300, 256))
    assert len(counted) == 1


def test_a_torch_without_it_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Tensor:
        raise AttributeError("_linear_pointwise")

    monkeypatch.setattr(onednn, "onemkl_falls_behind", lambda: True)
    assert onednn._is_faster()
    monkeypatch.setattr(onednn, "linear", missing)
    assert not onednn._is_faster()
