"""The rules of our own small tasks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from coach.core.errors import SettingError
from coach.core.schema import build
from coach.environments.corners import Corners
from coach.environments.dials import Dials

UP, DOWN, LEFT, RIGHT = range(4)
WAYS = {0: (UP, LEFT), 1: (UP, RIGHT), 2: (DOWN, LEFT), 3: (DOWN, RIGHT)}


@pytest.mark.parametrize("seed", range(8))
def test_the_shortest_walk_pays_what_the_preset_says(seed: int) -> None:
    env = Corners()
    obs, _ = env.reset(seed=seed)
    np.testing.assert_allclose(obs["position"], [0, 0], atol=1e-6)
    first, second = WAYS[obs["goal"]]
    rewards = []
    for move in [first] * 3 + [second] * 3:
        obs, reward, terminated, truncated, _ = env.step(np.int64(move))
        rewards.append(reward)
    assert terminated
    assert not truncated
    assert sum(rewards) == pytest.approx(0.5)
    assert rewards[-1] == 1.0


def test_all_goals_come_up() -> None:
    env = Corners()
    assert {env.reset(seed=seed)[0]["goal"] for seed in range(40)} == {0, 1, 2, 3}


def test_walls_hold_and_wrong_corners_do_not_pay() -> None:
    env = Corners(size=3, limit=30)
    obs, _ = env.reset(seed=0)
    wrong = WAYS[3 - obs["goal"]]  # the corner across
    for move in [wrong[0]] * 3 + [wrong[1]] * 3:
        obs, reward, terminated, _, _ = env.step(np.int64(move))
        assert reward == -0.1
        assert not terminated
        assert env.observation_space.contains(obs)


def test_a_walk_is_cut_off_at_the_limit() -> None:
    env = Corners(limit=3)
    env.reset(seed=0)
    ends = [env.step(np.int64(move))[2:4] for move in (UP, DOWN, UP)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_dials_cost_the_turns_that_are_left() -> None:
    env = Dials(dials=2, positions=8, limit=50)
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        dials, wanted = obs[:2], obs[2:]
        assert (dials != wanted).all()
        terminated, steps = False, 0
        while not terminated:
            ahead = (wanted - dials) % 8
            action = np.where(ahead == 0, 1, np.where(ahead <= 4, 2, 0))
            obs, reward, terminated, truncated, _ = env.step(action)
            dials = obs[:2]
            apart = (wanted - dials) % 8
            left = np.minimum(apart, 8 - apart)
            assert reward == pytest.approx(-left.sum() / 8)
            steps += 1
        assert steps <= 4
        assert not truncated


def test_every_move_of_dials_is_what_it_says() -> None:
    for back_or_forth in product(range(3), repeat=2):
        env = Dials(positions=5)
        before = env.reset(seed=1)[0][:2]
        after = env.step(np.array(back_or_forth))[0][:2]
        assert after.tolist() == ((before + np.array(back_or_forth) - 1) % 5).tolist()


def test_the_best_play_of_dials_costs_what_the_preset_says() -> None:
    """Averaged over all beginnings: half a point, the bound that the preset's target names."""
    costs = []
    for first, second in product(range(1, 8), repeat=2):
        left = np.minimum([first, second], [8 - first, 8 - second])
        cost = 0.0
        while left.any():
            left = np.maximum(left - 1, 0)
            cost += left.sum() / 8
        costs.append(cost)
    assert np.mean(costs) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("cls", [Corners, Dials])
def test_settings_are_checked(cls: type) -> None:
    with pytest.raises(SettingError, match="limit"):
        build(cls, {"limit": 0})
    with pytest.raises(SettingError, match=r"lmit(.|\n)*'limit'"):
        build(cls, {"lmit": 5})


def test_a_board_without_a_middle_is_refused() -> None:
    """The walk begins in the middle, so the docstring asks for an odd size."""
    with pytest.raises(SettingError, match="size"):
        build(Corners, {"size": 4})
