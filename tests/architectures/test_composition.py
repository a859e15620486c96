"""What a network is made of, for every kind of observation and any names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.architectures.network import Network
from coach.core.errors import SettingError
from coach.core.schema import build
from coach.core.spec import Spec
from gymnasium import spaces
from torch import nn

VECTOR = spaces.Box(-1, 1, (3,))
CAMERA = spaces.Box(0, 255, (36, 36, 1), np.uint8)
NESTED = spaces.Dict(
    {"sensors": spaces.Dict({"camera": CAMERA, "speed": VECTOR}), "task": spaces.Discrete(4)}
)
ACTOR_CRITIC = {"policy": "categorical", "value": "value"}


def network(observation: spaces.Space[Any] = VECTOR, **settings: Any) -> Network:
    torch.manual_seed(0)
    spec = Spec(observation, spaces.Discrete(2))
    built: Network = build(Network, {"heads": ACTOR_CRITIC, **settings}, spec=spec).value
    return built


def embedders(network: Network) -> list[Any]:
    trunk: Any = network.trunks["shared"]
    return list(trunk.embedders)


def behind(output: torch.Tensor, module: nn.Module) -> set[str]:
    """Names of the parameters that an output depends on."""
    names = [name for name, _ in module.named_parameters()]
    gradients = torch.autograd.grad(output.sum(), list(module.parameters()), allow_unused=True)
    return {name for name, gradient in zip(names, gradients) if gradient is not None}


def nested_obs(batch: int = 4) -> Any:
    rng = torch.Generator().manual_seed(0)
    return {
        "sensors": {
            "camera": torch.randint(0, 256, (batch, 36, 36, 1), generator=rng).byte(),
            "speed": torch.rand(batch, 3, generator=rng),
        },
        "task": torch.arange(batch) % 4,
    }


def test_every_head_reads_the_shared_trunk() -> None:
    shared, obs = network(share_trunk=True), torch.rand(5, 3)
    trunk = {name for name, _ in shared.named_parameters() if name.startswith("trunks.")}
    policy, value = behind(shared(obs).policy.logits, shared), behind(shared(obs).value, shared)
    assert policy & value == trunk
    assert len(policy - trunk) == len(value - trunk) == 2  # weight and bias of the head itself


def test_separate_trunks_have_nothing_in_common() -> None:
    apart, obs = network(share_trunk=False), torch.rand(5, 3)
    policy, value = behind(apart(obs).policy.logits, apart), behind(apart(obs).value, apart)
    assert not policy & value
    assert policy | value == {name for name, _ in apart.named_parameters()}
    # Drawn one after the other, not copied from each other.
    first, second = (next(trunk.parameters()) for trunk in apart.trunks.values())
    assert not torch.equal(first, second)


def test_pictures_get_convolutions_and_the_rest_dense_layers() -> None:
    kinds = [type(embedder).__name__ for embedder in embedders(network(NESTED))]
    assert sorted(kinds) == ["MLP", "MLP", "NatureCNN"]


def test_features_are_those_of_each_key_in_order() -> None:
    settings = {
        "sensors.camera": {"type": "impala_cnn", "channels": [4], "width": 5},
        "sensors.speed": {"type": "mlp", "hidden": [7]},
        "task": {"type": "mlp", "hidden": []},
    }
    built, obs = network(NESTED, embedder=settings), nested_obs()
    leaves = {5: obs["sensors"]["camera"], 7: obs["sensors"]["speed"], 4: obs["task"]}
    merged = torch.cat([e(leaves[e.features]) for e in embedders(built)], -1)
    assert merged.shape == (4, 16)
    torch.testing.assert_close(built(obs).value, built.heads["value"](merged))


def test_one_setting_for_all_keys_makes_embedders_of_their_own() -> None:
    both = spaces.Dict({"a": VECTOR, "b": VECTOR})
    first, second = embedders(network(both, embedder={"type": "mlp", "hidden": [6]}))
    assert not torch.equal(first.layers.linears[0].weight, second.layers.linears[0].weight)


@pytest.mark.parametrize("key", ["sensors.camera", "sensors.speed", "task"])
def test_every_key_counts_and_rows_do_not_mix(key: str) -> None:
    built, obs = network(NESTED), nested_obs()
    before = built(obs).value
    *parents, last = key.split(".")
    inner = obs
    for name in parents:
        inner = inner[name]
    inner[last] = inner[last].clone()
    inner[last][0] = 3 if key == "task" else 1 - inner[last][0]
    after = built(obs).value
    assert (after[0] - before[0]).abs() > 1e-6
    torch.testing.assert_close(after[1:], before[1:], rtol=1e-4, atol=1e-5)


def test_heads_read_what_middleware_makes() -> None:
    built = network(NESTED, middleware={"type": "mlp", "hidden": [9]})
    assert built.heads["value"].out.in_features == 9
    assert built(nested_obs()).value.shape == (4,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"embedder": {"type": "mlp", "hiden": [3]}}, ["embedder.hiden", "'hidden'"]),
        ({"embedder": {"type": "mlp", "hidden": [0]}}, ["embedder.hidden"]),
        ({"embedder": {"type": "mlp", "activation": "rele"}}, ["embedder.activation", "'relu'"]),
        ({"middleware": "lstmm"}, ["middleware", "coach list middlewares"]),
        ({"heads": {"q": "continuous_q"}}, ["continuous_q", "Box", "Discrete(2)"]),
        ({"heads": {"q": {"type": "dueling_q", "huber_delta": -1}}}, ["heads.q.huber_delta"]),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        network(**settings)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("name", ["values", "keys", "type", "forward"])
def test_any_name_will_do_for_a_head(name: str) -> None:
    assert getattr(network(heads={name: "value"})(torch.rand(2, 3)), name).shape == (2,)


@pytest.mark.parametrize("name", ["values", "type", "training", "a.b"])
def test_any_name_will_do_for_a_key_of_the_observation(name: str) -> None:
    built = network(spaces.Dict({name: VECTOR}), normalize_observations=True)
    assert built({name: torch.rand(2, 3)}).value.shape == (2,)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, ()),
        spaces.Box(0, 255, (), np.uint8),
        spaces.Box(-1, 1, (2, 3)),
        spaces.Box(0, 255, (5,), np.uint8),
        spaces.Box(-5, 5, (2,), np.int64),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 2)),
        spaces.MultiDiscrete([2, 3], start=[1, -1]),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
        spaces.Discrete(3, start=-1),
    ],
    ids=str,
)
def test_every_plain_space_is_read(space: spaces.Space[Any]) -> None:
    space.seed(0)
    obs = torch.stack([torch.as_tensor(space.sample()) for _ in range(4)])
    value = network(space)(obs).value
    assert value.shape == (4,)
    assert torch.isfinite(value).all()


def test_spaces_without_arrays_are_refused_with_a_way_out() -> None:
    with pytest.raises(SettingError, match=r"Text are not supported\n.*FlattenObservation"):
        network(spaces.Text(5))
