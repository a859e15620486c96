"""What becomes of an agent's actions on their way to the environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from coach.core.errors import SettingError
from coach.environments.actions import to_environment
from coach.environments.bounded_actions import BoundActions
from gymnasium import spaces

F = np.float32
BIG = np.finfo(F).max


def sent(space: spaces.Space[Any], *actions: Any) -> list[Any]:
    """What the environment gets, checked against its space."""
    moves = to_environment(space)(np.array(actions))
    for move in moves:
        assert space.contains(move), f"{move!r} is not in {space}"
    return [np.asarray(move).tolist() for move in moves]


def test_the_range_of_the_agent_is_that_of_the_environment_in_each_dimension() -> None:
    space = spaces.Box(np.array([-2, 10, 0], F), np.array([6, 30, 1], F))
    found = sent(space, [-1, -1, -1], [0, 0, 0], [1, 1, 1], [0.5, -0.5, 0.25], [-9, 9, 2])
    assert found == [[-2, 10, 0], [2, 20, 0.5], [6, 30, 1], [4, 15, 0.625], [-2, 30, 1]]


def test_minus_one_to_one_is_left_as_it_is() -> None:
    action = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(F)
    moves = to_environment(spaces.Box(-1, 1, (3,), F))(action)
    assert np.stack(moves).tobytes() == action.tobytes()


def test_shape_and_type_are_those_of_the_space() -> None:
    for space in (spaces.Box(-3, 5, (2, 2), np.float64), spaces.Box(0, 4, (), np.float16)):
        size = int(np.prod(space.shape))
        (move,) = to_environment(space)(np.full((1, size), 0.5, F))
        assert (move.shape, move.dtype) == (space.shape, space.dtype)
        assert np.all(move == 3)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1e29, 1e29, (2,), F),
        spaces.Box(np.array([-3e-40, 0], F), np.array([3e-40, 1e-45], F)),
        spaces.Box(-60_000, 60_000, (2,), np.float16),
        spaces.Box(0.1, 0.3, (2,), np.float64),
        spaces.Box(np.array([-1e29, 5]), np.array([1e29, 5 + 1e-9]), dtype=np.float64),
    ],
    ids=str,
)
def test_extremes_stay_inside_and_are_reached(space: spaces.Box) -> None:
    low, middle, high = sent(space, [-1, -1], [0, 0], [1, 1])
    for reached, bound in ((low, space.low), (high, space.high)):
        assert np.all(np.abs(np.array(reached) - bound) <= np.spacing(np.abs(bound)))
    assert np.isfinite(middle).all()


def test_a_dimension_without_width_is_constant() -> None:
    space = spaces.Box(np.array([-1, 0.3, 7], F), np.array([1, 0.3, 7], F))
    for action in ([-1, -1, -1], [0.5, 0, 1], [1, 1, 0.2]):
        (move,) = sent(space, action)
        assert move == [action[0], pytest.approx(0.3), 7]


@pytest.mark.parametrize("far", [np.inf, BIG])
def test_dimensions_without_bounds_keep_the_environments_unit(far: Any) -> None:
    space = spaces.Box(np.array([-far, 0, -4], F), np.array([far, far, 4], F))
    assert sent(space, [250, 3.5, 0.5], [-1e9, -2, -1]) == [[250, 3.5, 2], [-1e9, 0, -4]]
    (most,) = sent(space, [float(BIG), float(BIG), 0])
    assert np.isfinite(most).all()


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 1, np.int8),
        (0, 2, np.uint8),
        (-3, 1, np.int8),
        (-128, 127, np.int8),
        (0, 255, np.uint8),
        (5, 11, np.int64),
        (-1_000_000, -999_990, np.int64),
        (0, 1, np.bool_),
    ],
)
def test_every_integer_gets_an_equal_share(low: int, high: int, dtype: Any) -> None:
    space, count = spaces.Box(low, high, (1,), dtype), high - low + 1
    grid = (np.arange(count * 100, dtype=np.float64) + 0.5) / (count * 50) - 1
    moves = np.concatenate(to_environment(space)(grid[:, None].astype(F))).astype(np.int64)
    values, counts = np.unique(moves, return_counts=True)
    assert values.tolist() == list(range(low, high + 1))
    assert counts.min() >= 99
    assert counts.max() <= 101
    assert sent(space, [-1], [1], [-5], [5]) == [[low], [high], [low], [high]]


def test_integers_of_each_dimension_and_shape() -> None:
    space = spaces.Box(np.array([[-1, 0]]), np.array([[1, 9]]), dtype=np.int64)
    assert sent(space, [-0.34, 0.9], [0.3, -0.81]) == [[[-1, 9]], [[0, 0]]]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_integers_without_bounds_are_rounded_and_stay_inside(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    space = spaces.Box(limits.min, limits.max, (1,), dtype)
    assert sent(space, [2.4], [2.6]) == [[2], [3]]
    for extreme in (-1e30, 1e30):
        (move,) = sent(space, [extreme])
        assert (move[0] > 0) == (extreme > 0)


class Lever(gym.Env[Any, Any]):
    observation_space = spaces.Box(-1, 1, (1,), F)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.action_space = space

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, F), float(np.sum(action)), False, False, {}


def test_bounds_can_be_narrowed() -> None:
    space = spaces.Box(np.array([0, -5], F), np.array([np.inf, 5], F))
    env = BoundActions(Lever(space), low=[1, -5], high=[4, 0])
    assert env.action_space == spaces.Box(np.array([1, -5], F), np.array([4, 0], F))
    assert env.step(np.array([2, -1], F))[1] == 1
    whole = BoundActions(Lever(spaces.Box(-np.inf, np.inf, (2, 1), np.int64)), low=-2, high=2)
    assert whole.action_space == spaces.Box(-2, 2, (2, 1), np.int64)


@pytest.mark.parametrize(
    ("space", "low", "high", "words"),
    [
        (spaces.Discrete(2), -1, 1, "serves Box actions"),
        (spaces.Box(0, np.inf, (1,), F), -1, 1, "does not lie within"),
        (spaces.Box(-np.inf, np.inf, (1,), F), 1, -1, "does not lie within"),
        (spaces.Box(-np.inf, np.inf, (1,), F), -np.inf, 1, "without bounds"),
        (spaces.Box(-np.inf, np.inf, (3,), F), [-1, -1], 1, "2 numbers do not fit 3"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(space: Any, low: Any, high: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        BoundActions(Lever(space), low=low, high=high)
