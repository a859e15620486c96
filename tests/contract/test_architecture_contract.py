"""Gradients, rows and pictures, for every registered embedder and middleware."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.core.batch import map_tree
from coach.core.errors import SettingError
from coach.core.registry import entries
from coach.core.schema import Part
from gymnasium import spaces
from torch import nn
from worlds import OBSERVATIONS, ours

ROWS = 6


def embedder(name: str, space: spaces.Space[Any]) -> Any:
    torch.manual_seed(0)
    return Part.of("embedder", name)(space=space)


def served(name: str) -> list[str]:
    """The observations (leaves of a Dict) that an embedder reads."""
    found = []
    for key, space in OBSERVATIONS.items():
        try:
            if not isinstance(space, spaces.Dict):
                embedder(name, space)
                found.append(key)
        except SettingError as error:
            assert name in str(error) or not ours("embedder", name), "it does not name the part"  # noqa: PT017
    return found


EMBEDDERS = [(entry.name, key) for entry in entries("embedder") for key in served(entry.name)]
PICTURES = sorted({name for name, key in EMBEDDERS if key == "image"})
MIDDLEWARES = [entry.name for entry in entries("middleware")]


def observe(space: spaces.Space[Any]) -> torch.Tensor:
    space.seed(0)
    return torch.stack([torch.as_tensor(space.sample()) for _ in range(ROWS)])


def assert_learns(module: nn.Module, output: torch.Tensor) -> None:
    """Every parameter gets a gradient, and not one of zeros."""
    parameters = dict(module.named_parameters())
    if not parameters:
        return
    toward = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((output * toward).sum(), list(parameters.values()))
    for name, gradient in zip(parameters, gradients):
        assert torch.isfinite(gradient).all(), name
        assert gradient.any(), name


@pytest.mark.parametrize(("name", "key"), EMBEDDERS)
def test_every_weight_of_an_embedder_learns(name: str, key: str) -> None:
    module = embedder(name, OBSERVATIONS[key])
    assert_learns(module, module(observe(OBSERVATIONS[key])))


@pytest.mark.parametrize(("name", "key"), EMBEDDERS)
def test_rows_of_an_embedder_do_not_mix(name: str, key: str) -> None:
    module, obs = embedder(name, OBSERVATIONS[key]), observe(OBSERVATIONS[key])
    before = module(obs)
    kept = obs.clone()
    obs[0] = obs[1]
    after = module(obs)
    torch.testing.assert_close(after[1:], before[1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[0], before[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(kept[1:], obs[1:]), "an embedder leaves its input alone"


@pytest.mark.parametrize("name", PICTURES)
def test_bytes_and_floats_of_one_picture_are_the_same(name: str) -> None:
    raw = observe(spaces.Box(0, 255, (36, 36, 3), np.uint8))
    by_bytes = embedder(name, spaces.Box(0, 255, (36, 36, 3), np.uint8))(raw)
    by_floats = embedder(name, spaces.Box(0, 1, (36, 36, 3), np.float32))(raw.float() / 255)
    torch.testing.assert_close(by_bytes, by_floats, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PICTURES)
def test_every_pixel_of_every_channel_counts(name: str) -> None:
    space = spaces.Box(0, 1, (36, 36, 3), np.float32)
    image = observe(space).requires_grad_()
    (gradient,) = torch.autograd.grad(embedder(name, space)(image).sum(), [image])
    assert gradient.amax(0).any(-1).any(-1).all()
    assert gradient.amax((0, 1, 2)).shape == (3,)
    assert gradient.abs().amax((0, 1, 2)).all()


@pytest.mark.parametrize("name", MIDDLEWARES)
def test_every_weight_of_a_middleware_learns_and_rows_do_not_mix(name: str) -> None:
    torch.manual_seed(0)
    module = Part.of("middleware", name)(features=5)
    features = torch.randn(ROWS, 5)
    fresh = module.initial_state(ROWS)
    carried = map_tree(torch.randn_like, fresh)  # a state of zeros would hide what reads it
    before, state = module(features, carried)
    assert before.shape == (ROWS, module.outputs)
    assert_learns(module, before)
    features = features.clone()
    features[0] = features[1]
    carried = map_tree(lambda s: torch.cat([s[1:2], s[1:]]), carried)
    after, _ = module(features, carried)
    torch.testing.assert_close(after[1:], before[1:])
    torch.testing.assert_close(after[0], before[1])
    assert (state is None) == (fresh is None)
