"""Which dimension of a picture is read as its channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.architectures.images import ImageReader
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.runners.experiment import build_experiment
from gymnasium import spaces


def reader(shape: tuple[int, ...], **settings: Any) -> ImageReader:
    return ImageReader(spaces.Box(0, 1, shape, np.float32), "cnn", **settings)


@pytest.mark.parametrize(
    ("shape", "size", "sure"),
    [
        ((84, 84, 3), (3, 84, 84), True),
        ((4, 84, 84), (4, 84, 84), True),
        ((210, 160, 3), (3, 210, 160), True),
        ((1, 30, 40), (1, 30, 40), True),
        ((10, 10, 7), (7, 10, 10), True),
        ((10, 10, 10), (10, 10, 10), False),
        ((8, 8, 12), (12, 8, 8), False),
        ((4, 4, 16), (16, 4, 4), False),
        ((20, 6, 6), (20, 6, 6), False),
        ((5, 9, 7), (5, 9, 7), True),
        ((9, 7, 12), (9, 7, 12), False),
    ],
)
def test_the_guess(shape: tuple[int, ...], size: tuple[int, ...], sure: bool) -> None:
    read = reader(shape)
    assert read.size == size
    assert (read.doubt is None) == sure


def test_a_guess_among_equals_is_that_channels_come_last() -> None:
    """As in MinAtar's Seaquest, 10 x 10 x 10."""
    picture = torch.rand(1, 10, 10, 10)
    assert torch.equal(reader((10, 10, 10))(picture), picture.permute(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(10, 10, 10), (8, 8, 12), (9, 9, 3), (3, 9, 9)])
@pytest.mark.parametrize("embedder", ["cnn", "impala_cnn"])
def test_the_order_can_be_set(shape: tuple[int, ...], embedder: str) -> None:
    picture = torch.rand(2, *shape)
    space = spaces.Box(0, 1, shape, np.float32)
    for order, wanted in (("first", picture), ("last", picture.permute(0, 3, 1, 2))):
        settings = {"type": embedder, "channel_order": order}
        built: Any = build_part("embedder", settings, "embedder", space=space).value
        assert torch.equal(built.read(picture), wanted)
        assert built(picture).shape == (2, built.features)
        assert built.read.doubt is None
    with pytest.raises(SettingError, match="channel_order"):
        build_part("embedder", {"type": embedder, "channel_order": "middle"}, "e", space=space)


class Cube(gym.Env[Any, Any]):
    """Pictures as high as they are wide as they are deep."""

    action_space = spaces.Discrete(2)

    def __init__(self, keyed: bool = False) -> None:
        cube = spaces.Box(0, 1, (6, 6, 6), np.bool_)
        self.observation_space = spaces.Dict({"board": cube}) if keyed else cube


def built_with(keyed: bool, embedder: Any, agent: dict[str, Any]) -> str:
    """What is said when a run is built."""
    settings = {
        "environment": {"id": f"{Path(__file__)}:Cube", "kwargs": {"keyed": keyed}},
        "agent": {**agent, "network": {"heads": {"q": "q"}, "embedder": embedder}},
        "memory": {"type": "replay", "capacity": 100},
        "run": {"steps": 100},
        "evaluation": {"every": 0},
    }
    experiment = build_experiment(settings)
    experiment.source.close()
    return experiment.note


def test_a_doubtful_order_is_said_once_with_its_setting() -> None:
    dqn = {"type": "dqn"}
    said = built_with(False, "cnn", dqn)
    assert said.count("(6, 6, 6)") == 1
    assert "agent.network.embedder: pictures of shape (6, 6, 6)" in said
    assert "`channel_order: first`" in said
    assert "agent.network.embedder.board: " in built_with(True, {"board": "cnn"}, dqn)
    for order in ("first", "last"):
        chosen = {"type": "cnn", "channel_order": order}
        assert "(6, 6, 6)" not in built_with(False, chosen, dqn)
    assert "(6, 6, 6)" not in built_with(False, "mlp", dqn)
