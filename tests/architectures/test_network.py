"""Networks joined from parts, and targets that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.encoding import flat_encoder, flat_size
from coach.architectures.network import Network
from coach.architectures.trunk import observation_leaves
from coach.core.errors import SettingError
from coach.core.spec import Spec
from gymnasium import spaces

VECTOR = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
DICT = Spec(
    spaces.Dict(
        {
            "image": spaces.Box(0, 255, (16, 16, 3), np.uint8),
            "body": spaces.Dict({"speed": spaces.Box(-1, 1, (2,)), "gear": spaces.Discrete(4)}),
        }
    ),
    spaces.Discrete(2),
)


def observe(count: int = 5) -> dict[str, Any]:
    return {
        "image": torch.randint(0, 255, (count, 16, 16, 3), dtype=torch.uint8),
        "body": {"speed": torch.rand(count, 2), "gear": torch.randint(4, (count,))},
    }


def test_an_embedder_per_key() -> None:
    network = Network(
        DICT,
        heads={"q": "q"},
        embedder={
            "image": {"type": "impala_cnn", "channels": [4], "width": 8},
            "body.speed": {"type": "mlp", "hidden": [7]},
            "body.gear": {"type": "mlp", "hidden": []},
        },
        middleware={"type": "mlp", "hidden": [6]},
    )
    trunk: Any = network.trunks["shared"]
    assert [embedder.features for embedder in trunk.embedders] == [4, 7, 8]
    assert network(observe()).q.mean.shape == (5, 2)


def test_keys_without_an_embedder_get_a_fitting_one() -> None:
    network = Network(DICT, heads={"q": "q"}, embedder={"image": {"type": "impala_cnn"}})
    assert network(observe()).q.mean.shape == (5, 2)


def test_unknown_keys_are_named() -> None:
    with pytest.raises(SettingError, match=r"'body\.speed'"):
        Network(DICT, heads={"q": "q"}, embedder={"body.sped": "mlp"})
    with pytest.raises(SettingError, match="no Dict"):
        Network(VECTOR, heads={"q": "q"}, embedder={"image": "mlp"})


def test_images_too_small_for_the_network_are_named() -> None:
    spec = Spec(spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Discrete(2))
    with pytest.raises(SettingError, match="16 x 16 pixels is too small for nature_cnn"):
        Network(spec, heads={"q": "q"}, embedder="nature_cnn")
    with pytest.raises(SettingError, match="needs an image"):
        Network(VECTOR, heads={"q": "q"}, embedder="nature_cnn")


@pytest.mark.parametrize("share", [True, False])
def test_trunks_are_shared_or_not(share: bool) -> None:
    network = Network(VECTOR, heads={"policy": "categorical", "value": "value"}, share_trunk=share)
    outputs = network(torch.rand(4, 3))
    gradients = torch.autograd.grad(
        outputs.value.sum(), list(network.trunks.parameters()), allow_unused=True
    )
    assert any(gradient is None for gradient in gradients) is (not share)


def test_a_missing_head_is_named() -> None:
    network = Network(VECTOR, heads={"value": "value"})
    with pytest.raises(SettingError, match="reads a head called 'q'"):
        network.require("dqn", q="values")
    with pytest.raises(SettingError, match="provides value"):
        network.require("dqn", value="values")
    with pytest.raises(AttributeError, match="no head 'q'"):
        _ = network(torch.rand(1, 3)).q


def test_both_channel_orders_are_read() -> None:
    torch.manual_seed(0)
    last = Network(
        Spec(spaces.Box(0, 255, (40, 40, 3), np.uint8), spaces.Discrete(2)), heads={"q": "q"}
    )
    torch.manual_seed(0)
    first = Network(
        Spec(spaces.Box(0, 255, (3, 40, 40), np.uint8), spaces.Discrete(2)), heads={"q": "q"}
    )
    image = torch.randint(0, 255, (2, 40, 40, 3), dtype=torch.uint8)
    torch.testing.assert_close(
        last(image).q.mean, first(image.permute(0, 3, 1, 2)).q.mean, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("space", "given", "wanted"),
    [
        (spaces.Discrete(3, start=1), [1, 3], [[1, 0, 0], [0, 0, 1]]),
        (spaces.MultiDiscrete([2, 3]), [[1, 2]], [[0, 1, 0, 0, 1]]),
        (spaces.MultiBinary(3), [[0, 1, 1]], [[0, 1, 1]]),
        (spaces.Box(0, 255, (2,), np.uint8), [[0, 255]], [[0, 1]]),
        (spaces.Box(-1, 1, (2, 2)), [[[1.0, 2], [3, 4]]], [[1, 2, 3, 4]]),
        (spaces.Box(-1, 1, ()), [0.5], [[0.5]]),
    ],
)
def test_observations_become_numbers(space: Any, given: Any, wanted: Any) -> None:
    dtype = torch.uint8 if space.dtype == np.uint8 else None
    encoded = flat_encoder(space)(torch.tensor(given, dtype=dtype))
    assert encoded.tolist() == wanted
    assert encoded.shape[-1] == flat_size(space)


def test_nested_keys_become_paths() -> None:
    leaves = list(observation_leaves(DICT.observation))
    assert leaves == [("body", "gear"), ("body", "speed"), ("image",)]
