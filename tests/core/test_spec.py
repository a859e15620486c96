"""What an environment offers: checks, counts and bounds; how observations lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coach.core.errors import SettingError
from coach.core.layout import (
    action_layout,
    allocate,
    as_numpy,
    assign,
    named_leaves,
    observation_layout,
    transition_bytes,
)
from coach.core.spec import Spec, box_bounds
from gymnasium import spaces

VECTOR = spaces.Box(-1, 1, (3,))


def spec(action: spaces.Space[Any], observation: spaces.Space[Any] = VECTOR) -> Spec:
    return Spec(observation, action)


def test_action_spaces_are_required_by_name() -> None:
    spec(spaces.Discrete(2)).require_action("me", spaces.Discrete, spaces.Box)
    with pytest.raises(SettingError) as raised:
        spec(spaces.MultiBinary(2)).require_action("agent me", spaces.Discrete, spaces.Box)
    assert "agent me serves Discrete or Box actions" in str(raised.value)
    assert "MultiBinary(2)" in str(raised.value)


def test_discrete_actions_are_counted() -> None:
    assert spec(spaces.Discrete(5, start=-2)).num_actions("me") == 5
    with pytest.raises(SettingError, match="me serves Discrete"):
        spec(VECTOR).num_actions("me")


def test_bounds_are_flat() -> None:
    box = spaces.Box(np.array([[-1.0], [0.5]]), np.array([[2.0], [np.inf]]), dtype=np.float64)
    low, high, bounded = box_bounds(box)
    assert low.tolist() == [-1.0, 0.5]
    assert high.tolist() == [2.0, np.inf]
    assert bounded.tolist() == [True, False]


HUGE = np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("space", "bounded"),
    [
        (spaces.Box(-1e9, 1e9, (1,), np.float32), True),
        (spaces.Box(-HUGE, HUGE, (1,), np.float32), False),
        (spaces.Box(0, HUGE, (1,), np.float32), False),
        (spaces.Box(-float(HUGE), float(HUGE), (1,), np.float64), False),
        (spaces.Box(-1e300, 1e300, (1,), np.float64), False),
        (spaces.Box(-65504, 65504, (1,), np.float16), False),
        (spaces.Box(-np.inf, 0, (1,), np.float32), False),
        (spaces.Box(-np.inf, np.inf, (1,), np.int64), False),
        (spaces.Box(0, np.inf, (1,), np.int16), False),
        (spaces.Box(-(2**31), 2**31 - 1, (1,), np.int32), False),
        (spaces.Box(0, 2**64 - 1, (1,), np.uint64), False),
        (spaces.Box(-128, 127, (1,), np.int8), True),
        (spaces.Box(0, 65_535, (1,), np.uint16), True),
        (spaces.Box(0, 2**40, (1,), np.int64), True),
        (spaces.Box(0, 1, (1,), np.bool_), True),
        (spaces.Box(7, 7, (1,), np.float32), True),
    ],
    ids=str,
)
def test_what_stands_for_no_bound(space: spaces.Box, bounded: bool) -> None:
    assert box_bounds(space)[2].tolist() == [bounded]
    if bounded:
        assert spec(space).bounded_actions("me") == 1
    else:
        with pytest.raises(SettingError, match=r"me needs bounded actions(.|\n)*BoundActions"):
            spec(space).bounded_actions("me")


def test_bounds_are_those_of_a_box() -> None:
    assert spec(spaces.Box(-1, 1, (2, 3))).bounded_actions("me") == 6
    with pytest.raises(SettingError, match="me serves Box"):
        spec(spaces.Discrete(2)).bounded_actions("me")


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (spaces.Box(-1, 1, (3,), np.float64), (3,), torch.float32),
        (spaces.Box(-1, 1, (2, 2), np.float16), (2, 2), torch.float32),
        (spaces.Box(0, 255, (4, 8, 8), np.uint8), (4, 8, 8), torch.uint8),
        (spaces.Box(-9, 9, (2,), np.int8), (2,), torch.int8),
        (spaces.Box(0, 1, (2,), np.bool_), (2,), torch.bool),
        (spaces.Box(0, 60_000, (2,), np.uint16), (2,), torch.int64),
        (spaces.Discrete(3), (), torch.int64),
        (spaces.MultiDiscrete([2, 3]), (2,), torch.int64),
        (spaces.MultiBinary((2, 3)), (2, 3), torch.int8),
    ],
    ids=str,
)
def test_every_value_fits_where_it_is_stored(
    space: spaces.Space[Any], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    assert observation_layout(space) == (shape, dtype)
    stored = as_numpy(allocate(observation_layout(space), 2))
    space.seed(0)
    value = space.sample()
    assign(stored, 1, value)
    np.testing.assert_allclose(stored[1], np.asarray(value, np.float64), rtol=1e-6)
    assert not stored[0].any()


def test_dicts_are_stored_key_by_key() -> None:
    space = spaces.Dict(
        {"a": spaces.Box(0, 255, (4,), np.uint8), "b": spaces.Dict({"c": spaces.Discrete(3)})}
    )
    layout = observation_layout(space)
    assert layout == {"a": ((4,), torch.uint8), "b": {"c": ((), torch.int64)}}
    leaves = named_leaves(allocate(layout, 5, 2), "obs")
    assert {name: tuple(leaf.shape) for name, leaf in leaves.items()} == {
        "obs.a": (5, 2, 4),
        "obs.b.c": (5, 2),
    }
    assert transition_bytes(spec(spaces.Discrete(2), space)) == 4 + 8 + 8


@pytest.mark.parametrize(
    ("space", "layout"),
    [
        (spaces.Discrete(3, start=4), ((), torch.int64)),
        (spaces.Box(-1, 1, (2, 3)), ((6,), torch.float32)),
        (spaces.Box(-1, 1, ()), ((1,), torch.float32)),
        (spaces.MultiDiscrete([2, 3]), ((2,), torch.int64)),
        (spaces.MultiBinary((2, 2)), ((4,), torch.int64)),
    ],
    ids=str,
)
def test_actions_are_a_number_or_a_flat_vector(space: spaces.Space[Any], layout: Any) -> None:
    assert action_layout(space) == layout


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(VECTOR), spaces.Tuple([VECTOR])])
def test_observations_without_arrays_are_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(SettingError, match=rf"{type(space).__name__} are not supported"):
        observation_layout(space)
    remedy = "ObservationWrapper" if isinstance(space, spaces.Sequence) else "FlattenObservation"
    with pytest.raises(SettingError, match=rf"\(key y.x\)(.|\n)*{remedy}"):
        observation_layout(spaces.Dict({"y": spaces.Dict({"x": space})}))
    with pytest.raises(SettingError, match=r"FilterObservation: {filter_keys: \[a\]}"):
        observation_layout(spaces.Dict({"a": VECTOR, "x": space}))


def test_memory_starts_where_kernels_like_it() -> None:
    """Kernels may round differently on unaligned arrays, which would spoil exact resume."""
    tree = allocate(observation_layout(spaces.Dict({"a": VECTOR, "b": VECTOR})), 3)
    assert all(leaf.data_ptr() % 64 == 0 for leaf in tree.values())
