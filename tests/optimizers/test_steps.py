"""Steps of every optimizer: those of torch.optim, and of the published RMSProp."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from coach.core.optimizer import Optimizer
from coach.optimizers.adam import Adam
from coach.optimizers.rmsprop import RMSProp
from coach.optimizers.sgd import SGD
from torch import Tensor, nn

SIZE = 40
RATES = (0.02, 0.02, 0.01, 0.0, 0.03, 0.005)


def gradients() -> list[Tensor]:
    """Of very different sizes; some are zero now and then, and some always."""
    generator = torch.Generator().manual_seed(12)
    drawn = torch.randn(len(RATES), SIZE, generator=generator) * torch.logspace(-6, 3, SIZE)
    drawn[2, ::3] = 0
    drawn[:, 5] = 0
    return [*drawn]


def stepped(settings: Optimizer) -> Tensor:
    parameter = nn.Parameter(torch.linspace(-1, 1, SIZE))
    parameter.grad = torch.zeros(SIZE)
    stepper = settings.build(parameter)
    for gradient, lr in zip(gradients(), RATES):
        parameter.grad.copy_(gradient)
        stepper.step(lr)
    return parameter.detach()


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (Adam(), torch.optim.Adam, {}),
        (
            Adam(betas=(0.5, 0.9), eps=1e-3, weight_decay=0.2),
            torch.optim.AdamW,
            {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.2},
        ),
        (SGD(), torch.optim.SGD, {}),
        (
            SGD(momentum=0.8, weight_decay=0.1),
            torch.optim.SGD,
            {"momentum": 0.8, "weight_decay": 0.1},
        ),
        (RMSProp(), torch.optim.RMSprop, {"alpha": 0.95, "eps": 1e-2}),
        (RMSProp(alpha=0.9, eps=1e-4), torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-4}),
        (
            RMSProp(eps=0.3, momentum=0.7, centered=True),
            torch.optim.RMSprop,
            {"alpha": 0.95, "eps": 0.3, "momentum": 0.7, "centered": True},
        ),
    ],
)
def test_steps_are_those_of_torch(ours: Optimizer, theirs: Any, settings: Any) -> None:
    parameter = nn.Parameter(torch.linspace(-1, 1, SIZE))
    optimizer = theirs([parameter], lr=1.0, **settings)
    for gradient, lr in zip(gradients(), RATES):
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = gradient
        optimizer.step()
    torch.testing.assert_close(stepped(ours), parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("under", [True, False])
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_rmsprop_by_its_formula(under: bool, centered: bool, momentum: float) -> None:
    alpha, eps = 0.9, 0.02
    wanted = []
    for n, value in enumerate(torch.linspace(-1, 1, SIZE).tolist()):
        mean = square = speed = 0.0
        for gradient, lr in zip((float(g[n]) for g in gradients()), RATES):
            mean = alpha * mean + (1 - alpha) * gradient
            square = alpha * square + (1 - alpha) * gradient**2
            spread = square - mean**2 if centered else square
            divisor = math.sqrt(spread + eps) if under else math.sqrt(spread) + eps
            speed = momentum * speed + gradient / divisor
            value -= lr * speed
        wanted.append(value)
    settings = RMSProp(
        alpha=alpha, eps=eps, momentum=momentum, centered=centered, eps_under_root=under
    )
    torch.testing.assert_close(stepped(settings), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_a_first_step_as_in_the_nature_dqn() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    parameter.grad = torch.tensor([0.2])
    published = RMSProp(alpha=0.95, eps=0.01, centered=True, eps_under_root=True)
    published.build(parameter).step(0.5)
    # square 0.002, mean 0.01: 1 - 0.5 * 0.2 / sqrt(0.002 - 0.0001 + 0.01)
    assert float(parameter.detach()) == pytest.approx(1 - 0.1 / math.sqrt(0.0119), rel=1e-6)
