"""What a memory or sampler must not lose: rows, environments, columns, the effect of priorities.

Rows are numbered by environment and step, so that each one drawn can be held against the truth.
Run against parts of your own: pytest tests/contract --plugin path/to/parts.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from coach.core.batch import Batch, leaves
from coach.core.memory import Memory
from coach.core.registry import entries, find
from coach.core.schema import build_part, parameters
from coach.core.spec import Spec
from coach.memories.replay import Replay
from coach.memories.rollout import Rollout
from coach.memories.samplers.prioritized import Prioritized
from coach.memories.samplers.uniform import Uniform
from gymnasium import spaces

ENVS, STEPS, GAMMA, EPISODE = 3, 48, 0.9, 4
MEMORIES = [entry.name for entry in entries("memory")]
SAMPLERS = [entry.name for entry in entries("sampler")]
LEARNING = [name for name in SAMPLERS if find("sampler", name).learns]  # type: ignore[attr-defined]
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(5),
    "box": spaces.Box(-100, 100, (2,), np.float32),
}
SEEN = spaces.Dict(
    {
        "where": spaces.Box(-1e6, 1e6, (3,), np.float32),
        "inner": spaces.Dict(
            {"kind": spaces.Discrete(200), "bytes": spaces.Box(0, 255, (2, 2), np.uint8)}
        ),
    }
)
SMALL = {
    "capacity": 10 * STEPS,
    "batch_size": 12,
    "warmup": 0,
    "updates_per_step": 1.0,
    "horizon": 8,
    "episodes": 2,
    "epochs": 2,
    "length": 8,
    "overlap": 4,
    "burn_in": 2,
    "discount": GAMMA,
}


def spec_of(action: str) -> Spec:
    return Spec(SEEN, ACTIONS[action])


def memory(name: str, action: str = "discrete", **settings: Any) -> Memory:
    known = parameters(find("memory", name))
    small = {key: value for key, value in SMALL.items() if key in known}
    spec = spec_of(action)
    built = build_part("memory", {"type": name, **small, **settings}, spec=spec, num_envs=ENVS)
    held: Memory = built.value
    return held


def seen(env: torch.Tensor, number: torch.Tensor) -> dict[str, Any]:
    """The observation of an environment at a (half) step; no two are alike in any column."""
    whole = 2 * number
    unit = (whole + 31 * env) % 200
    picture = torch.stack([unit, 255 - unit, (unit + 7) % 256, (3 * unit) % 256], -1)
    return {
        "where": torch.stack([env, number, 1_000 * env + whole], -1).float(),
        "inner": {
            "kind": unit.long(),
            "bytes": picture.to(torch.uint8).unflatten(-1, (2, 2)),
        },
    }


def truth(action: str) -> Batch:
    """All that happens, ``[T, N]``: every environment ends its last episode with the last step."""
    step, env = torch.meshgrid(torch.arange(STEPS), torch.arange(ENVS), indexing="ij")
    step, env = step.double(), env.double()
    boundary = step % EPISODE == EPISODE - 1
    terminated = boundary & (step % (2 * EPISODE) == EPISODE - 1)
    later = torch.where(boundary, step + 0.5, step + 1)  # what an episode ends with is seen once
    moves = {
        "discrete": ((7 * env + step) % 5).long(),
        "box": torch.stack([step, -10 * env - 1], -1).float(),
    }
    return Batch(
        obs=seen(env, step),
        action=moves[action],
        reward=(100 * env + step + 0.25).float(),
        discount=(~terminated).float(),
        next_obs=seen(env, later),
        boundary=boundary,
        extras={"log_prob": (env - step).float(), "value": (10 * env + step).float()},
    )


def fragments(whole: Batch, length: int) -> Iterator[Batch]:
    for begin in range(0, STEPS, length):
        part = whole.map(lambda tensor, b=begin: tensor[b : b + length].clone())  # type: ignore[misc]
        part.env_ids = torch.arange(ENVS)
        yield part


def names_of(batch: Batch) -> list[tuple[int, int]]:
    """Environment and step of each row."""
    return [(int(env), int(step)) for env, step, _ in batch.obs["where"].tolist()]


def check_content(drawn: Batch, whole: Batch, extras: bool) -> None:
    """Hold every field of every row against what was written."""
    rows = names_of(drawn)
    steps, envs = torch.tensor([t for _, t in rows]), torch.tensor([e for e, _ in rows])
    for name in ("obs", "next_obs"):
        for path, leaf in leaves(getattr(drawn, name)):
            wanted = dict(leaves(getattr(whole, name)))[path][steps, envs]
            torch.testing.assert_close(leaf, wanted, rtol=0, atol=0, msg=f"{name}.{path} differs")
    for name in ("action", "reward", "boundary"):
        wanted = getattr(whole, name)[steps, envs]
        assert torch.equal(getattr(drawn, name), wanted), f"{name} differs"
    wanted = GAMMA * whole.discount[steps, envs]
    torch.testing.assert_close(drawn.discount, wanted, msg="discount differs")
    if extras:
        assert set(whole.extras) <= set(drawn.extras), "extras are lost"
        for name, values in whole.extras.items():
            assert torch.equal(drawn.extras[name], values[steps, envs]), f"{name} differs"


def flat(batch: Batch) -> Batch:
    return batch.flatten() if batch.reward.dim() == 2 else batch


def check_all_is_drawn(held: Memory, action: str = "discrete", times: int = 30) -> None:
    """Every row of every environment is drawn, with what was written of it.

    A rollout gives each row ``epochs`` times. Of a replay so many rows are drawn that a uniform
    sampler leaves out a given one in e**-times of all cases.
    """
    whole, count = truth(action), Counter[tuple[int, int]]()
    replays = held.order == "replay"
    for fragment in fragments(whole, min(held.fragment_length, STEPS)):
        held.write(fragment)
        if not replays:
            for batch in held.batches(lambda batch: batch):
                check_content(flat(batch), whole, extras=True)
                count.update(names_of(flat(batch)))
    wanted = times * STEPS * ENVS
    if replays:
        for batch in held.batches(lambda batch: batch, more=lambda: True):
            check_content(flat(batch), whole, extras=False)
            count.update(names_of(flat(batch)))
            if count.total() >= wanted:
                break
    every = {(env, step) for env in range(ENVS) for step in range(STEPS)}
    assert every - set(count) == set(), "rows that were never drawn"
    assert set(count) - every == set(), "rows that nobody wrote"
    if not replays:
        assert set(count.values()) == {SMALL["epochs"]}, "rows are not drawn equally often"


def check_priorities(held: Memory) -> None:
    """Rows of large errors are drawn more often than others, and weigh no more."""
    whole = truth("discrete")
    for fragment in fragments(whole, min(held.fragment_length, STEPS)):
        held.write(fragment)
    favourites = {(0, 5), (1, 30), (2, 41)}
    count, weights = Counter[bool](), dict[bool, list[float]]({True: [], False: []})
    drawn = 0
    for batch in held.batches(lambda batch: batch, more=lambda: True):
        favoured = torch.tensor([name in favourites for name in names_of(batch)])
        held.feedback(batch, torch.where(favoured, 50.0, 0.02))
        drawn += len(favoured)
        if drawn > 20 * STEPS * ENVS:  # by then every row has come by
            count.update(favoured.tolist())
            if batch.weight is not None:
                for is_one, weight in zip(favoured.tolist(), batch.weight.tolist()):
                    weights[is_one].append(weight)
        if drawn > 35 * STEPS * ENVS:
            break
    share = count[True] / count.total()
    assert share > 3 * len(favourites) / (STEPS * ENVS), f"priorities have no effect: {share:.1%}"
    if weights[False]:
        assert np.mean(weights[True]) <= np.mean(weights[False])


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_hands_out_every_row_as_it_was_written(name: str, action: str) -> None:
    check_all_is_drawn(memory(name, action), action)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_draws_every_row_of_every_environment(name: str) -> None:
    check_all_is_drawn(memory("replay", sampler=name))


@pytest.mark.parametrize("name", LEARNING)
def test_priorities_have_an_effect(name: str) -> None:
    check_priorities(memory("replay", sampler=name))


class FirstEnvironment(Uniform):
    """Draws from one environment alone."""

    def draw(self, stripes: Any, count: int, step: int, rng: torch.Generator) -> Any:
        index, weight = super().draw(stripes, count, step, rng)
        return index % stripes.rows, weight


class NeverNewest(Uniform):
    """Leaves out the newest row of the last environment."""

    def draw(self, stripes: Any, count: int, step: int, rng: torch.Generator) -> Any:
        index, weight = super().draw(stripes, count, step, rng)
        newest = (ENVS - 1) * stripes.rows + (int(stripes.written[-1]) - 1) % stripes.rows
        return torch.where(index == newest, 0, index), weight


class Forgetful(Prioritized):
    """Takes no priorities."""

    def feedback(self, index: torch.Tensor, priority: torch.Tensor) -> None:
        self.ignored = priority


@pytest.mark.parametrize("sampler", [FirstEnvironment, NeverNewest])
def test_a_sampler_that_leaves_out_rows_is_caught(sampler: type[Uniform]) -> None:
    with pytest.raises(AssertionError, match="never drawn"):
        check_all_is_drawn(memory("replay", sampler=sampler()))


def test_a_sampler_without_ears_is_caught() -> None:
    with pytest.raises(AssertionError, match="no effect"):
        check_priorities(memory("replay", sampler=Forgetful()))


LOSSES = {
    "obs.where": lambda b: b.next_obs["where"][..., 2].zero_(),
    "inner.bytes": lambda b: b.obs["inner"]["bytes"][..., 1, 1].zero_(),
    "action": lambda b: b.action.zero_(),
    "reward": lambda b: b.reward.round_(),
    "discount": lambda b: b.discount.fill_(GAMMA),
    "boundary": lambda b: b.boundary.zero_(),
}


@pytest.mark.parametrize("lost", LOSSES)
@pytest.mark.parametrize("kind", [Replay, Rollout])
def test_a_memory_that_loses_a_column_is_caught(kind: type[Memory], lost: str) -> None:
    name = "replay" if kind is Replay else "rollout"
    held = memory(name)
    write = held.write

    def losing(fragment: Batch) -> None:
        LOSSES[lost](fragment)
        write(fragment)

    held.write = losing  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="differs"):
        check_all_is_drawn(held)


def test_a_rollout_that_loses_extras_or_passes_is_caught() -> None:
    for spoil, words in (("extras", "extras are lost"), ("rows", "equally often|never drawn")):
        held = memory("rollout")
        batches = held.batches

        def worse(*arguments: Any, inner: Any = batches, spoil: str = spoil) -> Iterator[Batch]:
            for number, batch in enumerate(inner(*arguments)):
                if spoil == "extras":
                    batch.extras.clear()
                if spoil != "rows" or number % 4 != 3:
                    yield batch

        held.batches = worse  # type: ignore[method-assign]
        with pytest.raises(AssertionError, match=words):
            check_all_is_drawn(held)
