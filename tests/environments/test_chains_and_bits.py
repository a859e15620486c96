"""The exploration chain, bit flipping, and masks that environments tell in `info`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from coach.core.errors import SettingError
from coach.environments.action_mask import ActionMask
from coach.environments.bit_flip import BitFlip
from coach.environments.exploration_chain import ExplorationChain
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env


def episode(env: gym.Env[Any, Any], actions: list[int]) -> tuple[float, bool, bool]:
    env.reset(seed=0)
    total = 0.0
    for action in actions:
        _, reward, terminated, truncated, _ = env.step(np.int64(action))
        total += float(reward)
    return total, terminated, truncated


@pytest.mark.parametrize("env", [ExplorationChain(), ExplorationChain(1), BitFlip(), BitFlip(2)])
def test_they_are_proper_environments(env: gym.Env[Any, Any]) -> None:
    check_env(env, skip_render_check=True)


def test_the_chain_by_hand() -> None:
    chain = ExplorationChain(5, mapping=0)
    obs, _ = chain.reset(seed=0)
    assert obs.tolist() == [1, 1, 0, 0, 0]
    total, terminated, truncated = episode(chain, [1] * 14)
    assert (total, terminated, truncated) == (12.0, True, False)  # 3 steps there, 11 more in it
    total, _, _ = episode(chain, [0] * 14)
    assert total == pytest.approx(0.014)


def test_the_best_return_of_twenty_cells() -> None:
    total, terminated, _ = episode(ExplorationChain(20, mapping=0), [1] * 29)
    assert terminated
    assert total == 12.0


def test_actions_mean_something_else_in_each_cell() -> None:
    chain = ExplorationChain(20)
    leads_right = [int(action) for action in chain.right]
    assert 5 <= sum(leads_right) <= 15
    assert episode(chain, [*leads_right[1:], *[leads_right[-1]] * 10])[0] == 12.0
    assert leads_right == ExplorationChain(20).right.tolist()
    assert leads_right != ExplorationChain(20, mapping=2).right.tolist()
    for action in (0, 1):  # neither of them everywhere leads to the right end
        assert episode(chain, [action] * 29)[0] < 1


def test_bits_by_hand() -> None:
    env = BitFlip(4)
    obs, _ = env.reset(seed=3)
    wrong = np.flatnonzero(obs["observation"] != obs["desired_goal"])
    assert len(wrong)
    for number, bit in enumerate(wrong):
        _, reward, terminated, truncated, _ = env.step(np.int64(bit))
        last = number == len(wrong) - 1
        assert (reward, terminated) == ((0.0, True) if last else (-1.0, False))
    total, terminated, truncated = episode(env, [0, 0, 0, 0])
    assert (total, terminated, truncated) == (-4.0, False, True)


class Told(gym.Env[Any, Any]):
    """Tells in `info` that the action of the last step is not allowed now."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, key: str = "action_mask") -> None:
        self.key = key

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {self.key: np.ones(3, np.int8)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        mask = np.ones(3, np.int8)
        mask[action] = 0
        return np.zeros(2, np.float32), 0.0, False, False, {self.key: mask}


def test_masks_move_into_the_observation() -> None:
    env = ActionMask(Told())
    obs, _ = env.reset()
    assert env.observation_space.contains(obs)
    assert obs["action_mask"].tolist() == [1, 1, 1]
    assert env.step(1)[0]["action_mask"].tolist() == [1, 0, 1]


def test_no_mask_in_info_is_told_with_what_there_is() -> None:
    with pytest.raises(SettingError, match=r"action_mask.*no mask of 3 actions(.|\n)*\['legal'\]"):
        ActionMask(Told("legal")).reset()
    assert ActionMask(Told("legal"), key="legal").reset()[0]["action_mask"].sum() == 3


def test_masks_are_for_discrete_actions() -> None:
    with pytest.raises(SettingError, match="Discrete"):
        ActionMask(gym.make("Pendulum-v1"))
