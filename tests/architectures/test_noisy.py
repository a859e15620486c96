"""Noisy layers: where the noise comes from, what it is, and when there is none."""

from __future__ import annotations

import math

import pytest
import torch
from coach.architectures.linear import affine
from coach.architectures.network import Network
from coach.architectures.noisy import SIGMA_0, NoisyLinear
from coach.core.spec import Spec
from coach.core.stream import current_stream, drawing_from
from gymnasium import spaces

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_a_stream_the_means_alone_count() -> None:
    layer, x = NoisyLinear(3, 2), torch.randn(4, 3)
    assert current_stream() is None
    assert torch.equal(layer(x), affine(x, layer.weight, layer.bias))


@pytest.mark.parametrize("rows", [1, 4, 30])
@pytest.mark.parametrize("learning", [True, False])
def test_factorised_noise_by_hand(rows: int, learning: bool) -> None:
    layer, x = NoisyLinear(3, 2), torch.randn(rows, 3)
    with drawing_from(stream(1)), torch.set_grad_enabled(learning):
        found = layer(x)
    rng = stream(1)
    before, behind = (torch.randn(n, generator=rng) for n in (3, 2))
    before, behind = before.sign() * before.abs().sqrt(), behind.sign() * behind.abs().sqrt()
    weight = layer.weight + layer.weight_sigma * behind[:, None] * before[None, :]
    torch.testing.assert_close(found, x @ weight.t() + layer.bias + layer.bias_sigma * behind)


def test_every_call_draws_anew_and_the_same_stream_draws_the_same() -> None:
    layer, x = NoisyLinear(3, 2), torch.randn(4, 3)
    with drawing_from(stream(1)):
        first, second = layer(x), layer(x)
    with drawing_from(stream(1)):
        again = layer(x)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_begins_as_published() -> None:
    layer = NoisyLinear(16, 1_000)
    assert layer.weight.abs().max().item() == pytest.approx(0.25, rel=0.01)
    assert layer.weight.std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.05)
    assert torch.equal(layer.weight_sigma, torch.full((1_000, 16), SIGMA_0 / 4))


@pytest.mark.parametrize("head", ["q", "dueling_q", "categorical_q", "quantile_q"])
def test_the_noise_learns(head: str) -> None:
    network = Network(SPEC, heads={"q": {"type": head, "noisy": True}})
    with drawing_from(stream()):
        values = network(torch.randn(5, 3)).q
        nothing = torch.zeros(5)
        values.td_loss(nothing.long(), nothing, nothing, values, values.best())[0].sum().backward()
    sigmas = [p for name, p in network.named_parameters() if "sigma" in name]
    assert sigmas
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in sigmas)


def test_recorded_acting_draws_from_whichever_stream_it_is_given() -> None:
    network = Network(SPEC, heads={"q": {"type": "q", "noisy": True}})
    obs = torch.randn(2, 3)

    def run(source: torch.Generator | None, times: int = 6) -> torch.Tensor:
        with torch.inference_mode(), drawing_from(source):
            return torch.stack([network(obs).q.mean.clone() for _ in range(times)])

    mine, other = stream(3), stream(4)
    recorded = run(mine)
    network.recorder.enabled = False
    assert torch.equal(recorded, run(stream(3)))
    plain = run(None)
    network.recorder.enabled = True
    assert torch.equal(run(None), plain)
    assert torch.equal(plain[0], plain[-1])
    assert not torch.equal(run(other), recorded)
