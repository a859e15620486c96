"""The pretended accelerator itself: as strict as a real one, and a counter that can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pretended
import pytest
import torch
from pretended import NAME, DeviceError, Traffic, pretending

pytestmark = pytest.mark.skipif(bool(pretended.UNAVAILABLE), reason=pretended.UNAVAILABLE)


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    with pretending() as counted:
        yield counted


def on_device(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers).to(NAME)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: on_device(1, 2) + torch.ones(2),
        lambda: torch.cat([torch.ones(1), on_device(1)]),
        lambda: on_device(1).numpy(),
        lambda: torch.arange(3)[on_device(1).long()],
        lambda: on_device(1, 2).index_select(0, torch.tensor([1])),
        lambda: torch.rand(2, generator=torch.Generator(NAME)),
        lambda: torch.rand(2, device=NAME, generator=torch.Generator()),
        lambda: on_device(1, 2).exponential_(generator=torch.Generator()),
        lambda: torch.Generator(NAME).set_state(torch.Generator().get_state()),
    ],
)
@pytest.mark.usefixtures("traffic")
def test_refuses_what_cuda_refuses(wrong: Callable[[], object]) -> None:
    with pytest.raises((DeviceError, RuntimeError, TypeError)):
        wrong()


def test_computes_and_differentiates_like_the_cpu(traffic: Traffic) -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(4, 2), torch.rand(3, 4)
    expected = layer(x).square().sum()
    (wanted,) = torch.autograd.grad(expected, [layer.weight])
    there = layer.to(NAME)
    loss = there(x.to(NAME)).square().sum()
    (gradient,) = torch.autograd.grad(loss, [there.weight])
    assert gradient.device.type == NAME
    torch.testing.assert_close(gradient.cpu(), wanted)
    assert traffic.kernels > 0


@pytest.mark.parametrize(
    ("action", "waits"),
    [
        (lambda x: x + 1, 0),
        (lambda x: x.sum().item(), 1),
        (lambda x: bool((x > 1).any()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 1], 1),
        (lambda x: torch.ones(2).to(NAME), 1),  # a blocking copy waits in either direction
        (lambda x: torch.ones(2).to(NAME, non_blocking=True), 0),
        (lambda x: torch.where(x > 1, x, 0.0), 0),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_counts_what_python_waits_for(
    traffic: Traffic, action: Callable[[torch.Tensor], object], waits: int, inference: bool
) -> None:
    x = on_device(1, 2)
    traffic.clear()
    with torch.inference_mode(inference):
        action(x)
    assert traffic.waits.total() == waits


def test_a_copy_under_way_must_not_lose_what_it_reads() -> None:
    with pretending():
        staging = torch.empty(4, pin_memory=True).fill_(1)
        there = staging.to(NAME, non_blocking=True)
        staging.fill_(2)  # too early
        with pytest.raises(DeviceError, match="memory changed while a copy was reading it"):
            there.cpu()


def test_what_a_copy_under_way_fills_is_of_no_use_before_it_was_waited_for() -> None:
    with pretending():
        x = on_device(1, 2)
        host = torch.empty(2, pin_memory=True)
        host.copy_(x, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(x.device))
        assert not torch.equal(host, torch.tensor([1.0, 2.0]))
        arrived.synchronize()
        assert torch.equal(host, torch.tensor([1.0, 2.0]))
