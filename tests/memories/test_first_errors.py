"""First priorities beside a plain loop over the definition."""

from __future__ import annotations

import torch
from coach.core.batch import Batch
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.memories.first_errors import UNKNOWN, first_errors
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st


def fragment(seed: int, steps: int, envs: int) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    terminated = torch.rand(steps, envs, generator=rng) < 0.2
    truncated = torch.rand(steps, envs, generator=rng) < 0.2
    obs = torch.zeros(steps, envs, 1)
    extras = {n: torch.randn(steps, envs, generator=rng) for n in ("action_value", "value")}
    return Batch(
        obs,
        torch.zeros(steps, envs, dtype=torch.int64),
        torch.randn(steps, envs, generator=rng),
        (~terminated).float(),
        obs,
        terminated | truncated,
        extras=extras,
        env_ids=torch.arange(envs),
    )


def by_loop(batch: Batch, env: int, start: int, gamma: float, n_step: int) -> float:
    total, weight = 0.0, 1.0
    last = len(batch) - 1
    for t in range(start, start + n_step):
        total += weight * float(batch.reward[t, env])
        weight *= gamma
        if batch.discount[t, env] == 0:
            break
        if batch.boundary[t, env] or t == last:
            return UNKNOWN
        if t == start + n_step - 1 or t + 1 == last:
            total += weight * float(batch.extras["value"][t + 1, env])
            break
    return abs(total - float(batch.extras["action_value"][start, env]))


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 3), st.integers(1, 4))
def test_equals_a_loop_over_the_definition(seed: int, steps: int, envs: int, n_step: int) -> None:
    batch = fragment(seed, steps, envs)
    found = first_errors(batch, 0.9, n_step)
    assert found is not None
    wanted = [by_loop(batch, env, t, 0.9, n_step) for env in range(envs) for t in range(steps)]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_a_prioritized_memory_begins_with_them() -> None:
    spec = Spec(spaces.Box(-1, 1, (1,)), spaces.Discrete(2))
    settings = {"type": "replay", "capacity": 60, "sampler": {"type": "prioritized", "alpha": 1.0}}
    memory = build_part("memory", settings, spec=spec, num_envs=2).value
    batch = fragment(3, 6, 2)
    memory.write(batch)
    errors = first_errors(batch, memory.discount, 1)
    assert errors is not None
    held = torch.from_numpy(memory.sampler.tree.levels[0].copy()).view(-1)[: memory.stripes.size]
    mass = held.view(2, -1)[:, :6].flatten()
    known = errors >= 0
    torch.testing.assert_close(mass[known], errors[known].double() + 1e-6)
    largest = max(1.0, float(errors.max()))
    torch.testing.assert_close(mass[~known], torch.full_like(mass[~known], largest + 1e-6))
    assert known.any()
    assert not known.all()
