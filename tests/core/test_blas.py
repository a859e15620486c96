"""Products by NumPy are the products, wherever they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.dense import Dense
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.linear import Linear, product
from coach.core import blas
from coach.core.dispatch import Work
from coach.core.openblas import is_wide
from coach.core.recorder import Recorder
from coach.core.recording import Recording
from torch import Tensor


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where it is faster."""
    monkeypatch.setattr(blas, "FASTER", True)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """The products that were made here."""
    calls: list[tuple[Tensor, Tensor]] = []
    made = blas.product

    def noted(left: Tensor, right: Tensor, turned: bool = False) -> Tensor:
        calls.append((left, right))
        return made(left, right, turned)

    monkeypatch.setattr(blas, "product", noted)
    return calls


def close(mine: Any, wanted: Any) -> None:
    torch.testing.assert_close(mine, wanted, atol=2e-4, rtol=1e-4)


BATCHED = pytest.mark.skipif(blas.BATCH is None, reason="NumPy's library has no such function")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    yield blas.use_threads
    blas.use_threads(1)


@BATCHED
@pytest.mark.parametrize(("rows", "inputs", "columns"), [(256, 256, 256), (99, 300, 310)])
@pytest.mark.parametrize("members", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("turned", ["neither", "left", "right", "result", "all"])
@pytest.mark.parametrize("count", [2, 3])
def test_several_threads_make_the_same_bits(
    rows: int,
    inputs: int,
    columns: int,
    members: int | None,
    turned: str,
    count: int,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = () if members is None else (members,)
    left, right = torch.randn(*several, rows, inputs), torch.randn(*several, inputs, columns)
    if turned in ("left", "all"):
        left = torch.randn(*several, inputs, rows).transpose(-1, -2)
    if turned in ("right", "all"):
        right = torch.randn(*several, columns, inputs).transpose(-1, -2)
    result = turned in ("result", "all") and members is None
    alone = blas.product(left, right, result)
    together: list[Any] = []
    batch = blas.BATCH
    assert batch is not None

    def noted(*args: Any) -> Any:
        together.append(batch(*args))
        return together[-1]

    monkeypatch.setattr(noted, "LEAST", batch.LEAST, raising=False)
    monkeypatch.setattr(blas, "BATCH", noted)
    threads(count)
    made = blas.product(left, right, result)
    assert together[0] is not None  # not left to NumPy
    close(made, alone)
    assert torch.equal(made, alone) or not is_wide()
    assert made.stride() == alone.stride()


@BATCHED
def test_what_lies_otherwise_is_left_to_numpy(threads: Callable[[int], None]) -> None:
    wide, right = torch.randn(256, 512), torch.randn(256, 256)
    left = wide[:, ::2]
    close(blas.product(left, right), left @ right)
    threads(2)
    close(blas.product(left, right), left @ right)
    shared = torch.randn(256).expand(256, 256)
    close(blas.product(shared, right), shared @ right)


@BATCHED
def test_recordings_follow_the_number_of_threads(threads: Callable[[int], None]) -> None:
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    recording = Recording(lambda: [product(left, right) + 1], [left])
    other = torch.randn(256, 256)
    wanted = product(other, right) + 1
    for count in (1, 2, 1, 3):
        threads(count)
        close(recording([other])[0], wanted)


def test_without_it_numpy_has_the_threads(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "BATCH", None)
    threads(2)
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    close(blas.product(left, right), left @ right)


def test_tanh() -> None:
    x = torch.randn(300, 7)
    wanted = torch.tanh(x)
    assert blas.tanh_(x) is x
    close(x, wanted)


@pytest.mark.parametrize(
    ("wide", "rows", "turned"), [(64, 80, False), (256, 80, True), (256, 200, False)]
)
def test_wide_layers_keep_to_the_order_that_their_weights_ask_for(
    wide: int, rows: int, turned: bool
) -> None:
    dense, head = Dense(6, [wide, wide]), Linear(wide, 2)
    features = dense(torch.randn(rows, 6))
    assert features.is_contiguous() is not turned
    (gradient,) = torch.autograd.grad(head(features).sum(), features)
    assert gradient.stride() == features.stride()
    assert all(g.is_contiguous() for g in torch.autograd.grad(features.sum(), dense.parameters()))
    assert dense(torch.randn(1, 6)).is_contiguous()


@pytest.mark.parametrize(("rows", "inputs", "columns"), [(8, 1, 2), (8, 4, 64), (300, 256, 2)])
def test_results_lie_like_what_they_will_be_combined_with(
    rows: int, inputs: int, columns: int
) -> None:
    left, right = torch.randn(rows, inputs), torch.randn(inputs, columns)
    like = torch.zeros(columns, rows).t()
    assert product(left, right, like).stride() == like.stride()
    assert product(left, right, like.contiguous()).is_contiguous()
    with Work():
        assert product(left, right, like).stride() == like.stride()


@pytest.mark.parametrize("rows", [1, 64])
def test_layers_and_their_gradients_make_use_of_it(rows: int, counted: list[Any]) -> None:
    layer, x = Linear(300, 256), torch.randn(rows, 300, requires_grad=True)
    torch.autograd.grad(layer(x).sum(), [x, *layer.parameters()])
    assert len(counted) == 3
    layer.forward(torch.randn(rows, 300)).sum().backward()
    assert len(counted) == 5


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_recordings_make_the_same_bits_straight_by_numpy(activation: Any) -> None:
    dense, recorder = Dense(30, [64, 64], activation), Recorder()
    head = Linear(64, 2)
    parameters = [*dense.parameters(), *head.parameters()]

    def gradients(inputs: Sequence[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(head(dense(inputs[0])).square().sum(), parameters))

    for _ in range(6):
        x = torch.randn(128, 30)
        for one, other in zip(recorder("gradients", gradients, [x]), gradients([x])):
            assert torch.equal(one, other)
    assert not recorder.refused
    ((_, recording),) = recorder.recordings
    by_name: dict[str, list[Any]] = {"product": [], "tanh_": []}
    for name, call in recording.operations:
        by_name.setdefault(name, []).append(getattr(call, "func", None))
    assert by_name["product"] == [np.matmul] * 8  # layers, their weights, what two came from
    assert by_name["tanh_"] == [np.tanh] * (2 if activation == "tanh" else 0)


def test_what_is_recorded_is_what_was_asked_for() -> None:
    left, right = torch.randn(5, 3), torch.randn(3, 4)
    recording = Recording(lambda: [blas.tanh_(product(left, right) + 1)], [left])
    other = torch.randn(5, 3)
    close(recording([other])[0], torch.tanh(other @ right + 1))


def test_their_work_is_counted(counted: list[Any]) -> None:
    with Work() as work:
        product(torch.randn(2, 30, 25), torch.randn(2, 25, 20))
    assert len(counted) == 1
    assert work.operations == 2 * 2 * 30 * 25 * 20


def test_what_is_left_to_torch(counted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    single = torch.randn(30, 30)
    assert blas.serves(single)
    assert not blas.serves(single.double())
    assert not blas.serves(single.to("meta"))
    torch.set_num_threads(2)  # whose threads would be in the way of others
    assert not blas.serves(single)
    product(single, single)
    Dense(30, [30])(single)
    torch.set_num_threads(1)
    monkeypatch.setattr(blas, "FASTER", False)
    Dense(30, [30])(single)
    EnsembleLinear(2, 30, 4)(single.expand(2, 30, 30))
    assert counted == []
