"""A replay memory as a list of transitions: slow, and obviously right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from coach.core.batch import Batch
from coach.core.layout import action_layout, allocate, observation_layout
from coach.core.spec import Spec
from gymnasium import spaces

SPECS = {
    "vector": Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(4)),
    "image": Spec(spaces.Box(0, 255, (2, 4, 4), np.uint8), spaces.Box(-1, 1, (2,))),
    "stack": Spec(spaces.Box(0, 255, (4, 5, 5), np.uint8), spaces.Discrete(2)),
    "dict": Spec(
        spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Dict({"c": spaces.Discrete(5)})}),
        spaces.MultiDiscrete([3, 2]),
    ),
}


@dataclass
class Row:
    """One transition as it happened."""

    obs: Any
    action: Any
    reward: float
    terminated: bool
    boundary: bool
    next_obs: Any


class World:
    """Makes fragments of random episodes and remembers every transition of each environment."""

    def __init__(self, spec: Spec, num_envs: int, seed: int) -> None:
        self.spec, self.num_envs = spec, num_envs
        self.rng = np.random.default_rng(seed)
        self.rows: list[list[Row]] = [[] for _ in range(num_envs)]
        self.obs = [self._observation() for _ in range(num_envs)]

    def fragment(self, steps: int) -> Batch:
        layout = observation_layout(self.spec.observation)
        batch = Batch(
            obs=allocate(layout, steps, self.num_envs),
            action=allocate(action_layout(self.spec.action), steps, self.num_envs),
            reward=torch.zeros(steps, self.num_envs),
            discount=torch.zeros(steps, self.num_envs),
            next_obs=allocate(layout, steps, self.num_envs),
            boundary=torch.zeros(steps, self.num_envs, dtype=torch.bool),
            env_ids=torch.arange(self.num_envs),
        )
        for t in range(steps):
            for env in range(self.num_envs):
                row = self._step(env)
                _put(batch.obs, (t, env), row.obs)
                _put(batch.next_obs, (t, env), row.next_obs)
                batch.action[t, env] = torch.as_tensor(row.action)
                batch.reward[t, env] = row.reward
                batch.discount[t, env] = 0.0 if row.terminated else 1.0
                batch.boundary[t, env] = row.boundary
                self.rows[env].append(row)
        return batch

    def wanted(self, env: int, number: int, n: int, gamma: float) -> dict[str, Any]:
        """The ``n``-step transition that starts at row ``number`` of an environment."""
        rows = self.rows[env]
        total, k = 0.0, 0
        while True:
            row = rows[number + k]
            total += gamma**k * row.reward
            k += 1
            if row.boundary or k == n or number + k == len(rows):
                break
        return {
            "obs": rows[number].obs,
            "action": rows[number].action,
            "reward": total,
            "discount": 0.0 if row.terminated else gamma**k,
            "next_obs": row.next_obs,
            "boundary": row.boundary,
        }

    def _step(self, env: int) -> Row:
        kind = self.rng.choice(["on", "on", "on", "end", "cut"])
        then = self._next(self.obs[env])
        row = Row(
            self.obs[env],
            self._action(),
            float(np.float32(self.rng.normal())),
            kind == "end",
            kind != "on",
            then,
        )
        self.obs[env] = then if kind == "on" else self._observation()
        return row

    def _next(self, obs: Any) -> Any:
        """What follows; a stack of pictures moves on by one."""
        fresh = self._observation()
        if self.spec is SPECS["stack"]:
            fresh[:-1] = obs[1:]
        return fresh

    def _observation(self) -> Any:
        return self._random(observation_layout(self.spec.observation))

    def _action(self) -> Any:
        return self._random(action_layout(self.spec.action))

    def _random(self, layout: Any) -> Any:
        if isinstance(layout, dict):
            return {key: self._random(inner) for key, inner in layout.items()}
        shape, dtype = layout
        if dtype == torch.float32:
            return self.rng.normal(size=shape).astype(np.float32)
        return self.rng.integers(0, 2, size=shape)


def same(got: Any, wanted: Any) -> bool:
    """Whether two (nested) observations are equal."""
    if isinstance(wanted, dict):
        return all(same(got[key], value) for key, value in wanted.items())
    return bool(np.array_equal(np.asarray(got), np.asarray(wanted)))


def _put(target: Any, at: tuple[int, int], value: Any) -> None:
    if isinstance(target, dict):
        for key, inner in target.items():
            _put(inner, at, value[key])
    else:
        target[at] = torch.as_tensor(value)
