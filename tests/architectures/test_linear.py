"""Linear layers are torch's, whatever the order of their products."""

from __future__ import annotations

import pytest
import torch
from coach.architectures.linear import Linear
from torch import Tensor


@pytest.mark.parametrize("rows", [1, 15, 16, 40, 64, 65])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(511, 9), (512, 9), (700, 9), (256, 1), (256, 2), (127, 8), (128, 8)]
)
@pytest.mark.parametrize("leaf", [True, False])
def test_outputs_and_gradients_are_those_of_torch(
    rows: int, inputs: int, outputs: int, leaf: bool
) -> None:
    layer = Linear(inputs, outputs)
    other = torch.nn.Linear(inputs, outputs)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(rows, inputs, requires_grad=leaf)
    pull = torch.randn(rows, outputs)

    def gradients(of: torch.nn.Linear) -> list[Tensor]:
        wanted = [*of.parameters(), *([x] if leaf else [])]
        return [of(x).detach(), *torch.autograd.grad((of(x) * pull).sum(), wanted)]

    torch.testing.assert_close(gradients(layer), gradients(other), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), other(x), atol=1e-5, rtol=1e-4)


def test_outputs_may_be_changed_in_place() -> None:
    layer = Linear(600, 5)
    x = torch.randn(20, 600)
    clipped = layer(x).relu_()
    torch.testing.assert_close(clipped, layer(x).clamp(min=0))
    clipped.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.shape == (5, 600)


def test_sequences_are_as_usual() -> None:
    layer = Linear(600, 5)
    x = torch.randn(4, 20, 600)
    torch.testing.assert_close(layer(x), layer(x.flatten(0, 1)).view(4, 20, 5))
