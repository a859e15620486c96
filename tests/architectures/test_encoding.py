"""What embedders make of integers: scaled by the bounds of their space, whatever their type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.embedders.cnn import CNN
from coach.architectures.embedders.mlp import MLP
from coach.architectures.encoding import flat_encoder
from coach.architectures.images import ImageReader
from coach.architectures.network import Network
from coach.core.batch import Batch
from coach.core.spec import Spec
from gymnasium import spaces


@pytest.mark.parametrize(
    ("low", "high", "dtype", "values", "wanted"),
    [
        (0, 1, np.uint8, [0, 1], [0, 1]),
        (0, 1, np.int8, [0, 1], [0, 1]),
        (0, 1, np.bool_, [0, 1], [0, 1]),
        (0, 5, np.uint8, [0, 2, 5], [0, 0.4, 1]),
        (0, 255, np.uint8, [0, 51, 255], [0, 0.2, 1]),
        (-1, 1, np.int8, [-1, 0, 1], [-1, 0, 1]),
        (-2, 8, np.int64, [-2, 0, 8], [-0.25, 0, 1]),
        (-8, 0, np.int16, [-8, -2, 0], [-1, -0.25, 0]),
        (1_000, 1_010, np.int32, [1_000, 1_005, 1_010], [0, 0.5, 1]),
        (0, 65_535, np.uint16, [0, 13_107, 65_535], [0, 0.2, 1]),
        (7, 7, np.uint8, [7], [0]),
        (0, 0, np.uint8, [0], [0]),
        (-np.inf, np.inf, np.int64, [-30, 200], [-30, 200]),
        (-(2**31), 2**31 - 1, np.int32, [-30, 200], [-30, 200]),
        (0.0, 255.0, np.float32, [0, 51, 255], [0, 51, 255]),
    ],
)
def test_integers_are_scaled_by_their_bounds(
    low: Any, high: Any, dtype: Any, values: list[float], wanted: list[float]
) -> None:
    space = spaces.Box(low, high, (len(values),), dtype)
    obs = torch.tensor([values]).to(torch.from_numpy(np.zeros(1, dtype)).dtype)
    torch.testing.assert_close(flat_encoder(space)(obs), torch.tensor([wanted]).float())
    picture = spaces.Box(low, high, (len(values), 9, 9), dtype)
    read = ImageReader(picture, "cnn", "first")(obs[..., None, None].expand(1, -1, 9, 9))
    torch.testing.assert_close(read[0, :, 4, 4], torch.tensor(wanted).float())


def test_each_entry_has_its_own_bounds() -> None:
    space = spaces.Box(np.array([[0, 0], [-4, 10]]), np.array([[1, 50], [4, 20]]), dtype=np.int64)
    encoded = flat_encoder(space)(torch.tensor([[[1, 5], [2, 15]], [[0, 50], [-4, 10]]]))
    assert encoded.flatten().tolist() == pytest.approx([1, 0.1, 0.5, 0.5, 0, 1, -1, 0])
    for order, shape in (("last", (6, 7, 2)), ("first", (2, 6, 7))):
        high = np.full(shape, 10)
        np.moveaxis(high, -1 if order == "last" else 0, 0)[1] = 100
        read = ImageReader(spaces.Box(0, high, dtype=np.int64), "cnn", order)  # type: ignore[arg-type]
        found = read(torch.full((1, *shape), 5))
        assert found.shape == (1, 2, 6, 7)
        assert found[0, :, 3, 3].tolist() == pytest.approx([0.5, 0.05])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.bool_])
def test_flags_look_the_same_in_every_type(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for shape, embedder in (((8,), MLP), ((3, 9, 9), MLP), ((9, 9, 3), CNN)):
        flags = rng.integers(2, size=(5, *shape))
        features = []
        for kind in (np.float32, dtype):
            torch.manual_seed(0)
            built = embedder(spaces.Box(0, 1, shape, kind))
            features.append(built(torch.from_numpy(flags.astype(kind))))
        assert torch.equal(*features)


def test_bytes_of_pictures_are_what_they_were() -> None:
    """Bit for bit: divided by 255 for an mlp, multiplied by its inverse for convolutions."""
    pictures = torch.randint(256, (3, 4, 12, 12), dtype=torch.uint8)
    space = spaces.Box(0, 255, (4, 12, 12), np.uint8)
    assert torch.equal(flat_encoder(space)(pictures), pictures.float().flatten(1) / 255.0)
    for channels_last in (False, True):
        shape = (12, 12, 4) if channels_last else (4, 12, 12)
        read = ImageReader(spaces.Box(0, 255, shape, np.uint8), "cnn")
        given = pictures.permute(0, 2, 3, 1).contiguous() if channels_last else pictures
        assert torch.equal(read(given), pictures.float() * (1 / 255))


def test_bits_and_choices_are_what_they_were() -> None:
    bits = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.int8)
    assert flat_encoder(spaces.MultiBinary([2, 2]))(bits).tolist() == [[0, 1, 1, 1]]
    assert flat_encoder(spaces.Discrete(3, start=5))(torch.tensor([6])).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_integers_are_normalized_when_that_is_asked_for(dtype: Any) -> None:
    """Then by mean and deviation alone, not by the bounds as well."""
    space = spaces.Box(0, 100, (3,), dtype)
    network = Network(
        Spec(space, spaces.Discrete(2)),
        heads={"q": "q"},
        embedder={"type": "mlp", "hidden": []},
        normalize_observations=True,
    )
    obs = torch.from_numpy(np.random.default_rng(0).integers(101, size=(40, 1, 3)).astype(dtype))
    for module in network.modules():
        refresh = getattr(module, "refresh", None)
        if refresh is not None:
            zeros = torch.zeros(40, 1)
            refresh(Batch(obs, zeros, zeros, zeros, obs, zeros.bool()))
    values = obs.flatten(0, 1).double()
    wanted = ((values - values.mean(0)) / values.std(0, correction=0)).float()
    head = network.heads["q"]
    torch.testing.assert_close(
        network(obs.flatten(0, 1)).q.mean,
        head(wanted).mean,  # type: ignore[operator]
        rtol=1e-3,
        atol=1e-4,
    )


def test_pictures_of_integers_are_scaled_rather_than_normalized() -> None:
    def network(normalize: bool) -> Network:
        torch.manual_seed(0)
        spec = Spec(spaces.Box(0, 3, (9, 9, 2), np.uint8), spaces.Discrete(2))
        return Network(spec, {"q": "q"}, embedder="cnn", normalize_observations=normalize)

    pictures = torch.randint(4, (2, 9, 9, 2), dtype=torch.uint8)
    assert torch.equal(network(True)(pictures).q.mean, network(False)(pictures).q.mean)
