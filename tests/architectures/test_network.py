"""Networks joined from parts, and targets that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.encoding import flat_encoder, flat_size
from coach.architectures.heads.continuous_q import ContinuousQ
from coach.architectures.heads.dueling_q import DuelingQ
from coach.architectures.network import Network
from coach.architectures.normalizers import ObservationNormalizer, RewardScale, RunningMoments
from coach.architectures.target import Target
from coach.architectures.trunk import observation_leaves
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.spec import Spec
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_dueling_advantages_have_mean_zero() -> None:
    head = DuelingQ(6, VECTOR)
    features = torch.randn(4, 6)
    torch.testing.assert_close(head(features).mean.mean(-1), head.value(features).squeeze(-1))


def test_an_ensemble_equals_separate_networks() -> None:
    spec = Spec(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)))
    head = ContinuousQ(3, spec, hidden=[5], ensemble=3)
    features, action = torch.randn(4, 3), torch.randn(4, 2)
    first, _, last = head.layers
    for member, values in enumerate(head(features)(action)):
        hidden = torch.cat([features, action], -1) @ first.weight[member] + first.bias[member]
        single = hidden.relu() @ last.weight[member] + last.bias[member]
        torch.testing.assert_close(values, single.squeeze(-1))


def test_a_target_copies_every_so_often() -> None:
    online = Network(VECTOR, heads={"q": "q"})
    target = Target(online, every=3)
    obs = torch.rand(2, 3)
    with torch.no_grad():
        online.heads["q"].out.bias.add_(1.0)  # type: ignore[union-attr, operator]
    same = []
    for _ in range(4):
        target.track(online)
        same.append(torch.equal(target(obs).q.mean, online(obs).q.mean))
    assert same == [False, False, True, True]
    again = Target(online, every=3)
    again.load_state_dict(target.state_dict())
    assert again.updates == 4
    assert not any(p.requires_grad for p in target.parameters())


def test_a_target_averages() -> None:
    online = torch.nn.Linear(1, 1)
    target = Target(online, tau=0.25)
    start = target.network.weight.clone()  # type: ignore[union-attr, operator]
    with torch.no_grad():
        online.weight.add_(4.0)
    target.track(online)
    torch.testing.assert_close(target.network.weight, start + 1.0)
    with pytest.raises(SettingError, match="tau"):
        Target(online, tau=0.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 1000))
def test_running_moments_equal_those_of_everything(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(3, 5, size=(size, 2)) for size in sizes]
    moments = RunningMoments((2,))
    for batch in batches:
        moments.update(torch.from_numpy(batch))
    whole = np.concatenate(batches)
    np.testing.assert_allclose(moments.mean.numpy(), whole.mean(0), atol=1e-9)
    np.testing.assert_allclose(moments.var.numpy(), whole.var(0), atol=1e-9)
    assert moments.count.item() == len(whole)


def fragment(obs: torch.Tensor, reward: torch.Tensor, boundary: torch.Tensor) -> Batch:
    return Batch(obs, reward, reward, reward, obs, boundary, env_ids=torch.arange(reward.shape[1]))


def test_observations_are_normalised_and_clipped() -> None:
    normalizer = ObservationNormalizer((), (2,), clip=3.0)
    obs = torch.randn(50, 4, 2) * 5 + 2
    normalizer.refresh(fragment(obs, torch.zeros(50, 4), torch.zeros(50, 4).bool()))
    scaled = normalizer(obs.flatten(0, 1))
    assert scaled.mean().abs() < 0.05
    assert abs(scaled.std().item() - 1) < 0.1
    assert normalizer(torch.full((1, 2), 1e6)).tolist() == [[3.0, 3.0]]


def test_rewards_are_scaled_by_the_deviation_of_the_return() -> None:
    rng = np.random.default_rng(0)
    reward = rng.normal(size=(200, 2)) * 7
    boundary = rng.random((200, 2)) < 0.1
    scale = RewardScale(gamma=0.9, clip=1e9)
    half = torch.zeros(100, 2, 1)
    for part in (slice(0, 100), slice(100, 200)):
        scale.refresh(
            fragment(half, torch.from_numpy(reward[part]), torch.from_numpy(boundary[part]))
        )
    running, seen = np.zeros(2), []
    for now, ended in zip(reward, boundary):
        running = running * 0.9 + now
        seen += list(running)
        running = running * ~ended
    wanted = reward / np.sqrt(np.var(seen) + 1e-8)
    np.testing.assert_allclose(scale(torch.from_numpy(reward)).numpy(), wanted, rtol=1e-5)


def test_statistics_travel_with_the_weights() -> None:
    network = Network(VECTOR, {"q": "q"}, normalize_observations=True, normalize_rewards=True)
    target = Target(network)
    obs, zeros = torch.randn(20, 3, 3) * 9, torch.randn(20, 3)
    for module in network.modules():
        if hasattr(module, "refresh"):
            module.refresh(fragment(obs, zeros, zeros.bool()))
    twin = Network(VECTOR, {"q": "q"}, normalize_observations=True, normalize_rewards=True)
    twin.load_state_dict(network.state_dict())
    target.track(network)
    for other in (twin, target):
        assert torch.equal(other(obs[0]).q.mean, network(obs[0]).q.mean)
