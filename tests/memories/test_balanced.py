"""Drawing every class equally often."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.spec import Spec
from coach.memories.replay import Replay
from coach.memories.samplers.balanced import Balanced
from gymnasium import spaces
from naive import SPECS

KEYED = Spec(
    spaces.Dict({"way": spaces.Discrete(4), "x": spaces.Box(-1, 1, (2,))}), spaces.Discrete(3)
)


def memory(spec: Spec, key: str, capacity: int = 60) -> Replay:
    return Replay(
        spec,
        2,
        capacity=capacity,
        batch_size=30,
        warmup=0,
        updates_per_step=1,
        sampler=Balanced(key),
    )


def fragment(way: list[int]) -> Batch:
    """Steps of two environments on such ways, the second one's shifted by one."""
    ways = torch.tensor([[w, (w + 1) % 4] for w in way])
    steps = len(way)
    obs = {"way": ways, "x": torch.zeros(steps, 2, 2)}
    nothing = torch.zeros(steps, 2)
    return Batch(
        obs, ways % 3, nothing, nothing + 1, obs, torch.zeros(steps, 2, dtype=torch.bool),
        env_ids=torch.arange(2),
    )  # fmt: skip


def drawn(replay: Replay, count: int = 300) -> Batch:
    index, weight = replay.sampler.draw(replay.stripes, count, 0, replay.rng)
    assert weight is None
    return replay.stripes.gather(index, 1.0, 1)


def test_rare_classes_come_as_often_as_common_ones() -> None:
    replay = memory(KEYED, "way")
    replay.write(fragment([0] * 18 + [2, 2]))  # 36 of ways 0 and 1, four of ways 2 and 3
    assert torch.bincount(drawn(replay).obs["way"], minlength=4).tolist() == [75] * 4
    assert replay.sampler.monitor(0) == {"classes": 4.0}
    within = drawn(replay, 4_000)
    rows = np.bincount(within.index[within.obs["way"] == 0].numpy())  # type: ignore[index]
    assert rows[rows > 0].min() > 30  # uniform within the class: 1000 over 18 rows


def test_classes_by_action_and_a_batch_that_does_not_divide() -> None:
    replay = memory(KEYED, "action")
    replay.write(fragment([0, 1, 2, 0, 0, 0]))
    counts = torch.bincount(drawn(replay, 100).action, minlength=3)
    assert sorted(counts.tolist()) == [33, 33, 34]


def test_what_is_overwritten_is_forgotten() -> None:
    replay = memory(KEYED, "way", capacity=20)
    replay.write(fragment([3] * 10))
    replay.write(fragment([1] * 10))
    assert set(drawn(replay).obs["way"].tolist()) == {1, 2}


def test_goes_with_the_memory() -> None:
    replay = memory(KEYED, "way")
    replay.write(fragment([0, 1, 2, 3]))
    batches = list(replay.batches(lambda batch: batch))
    assert len(batches) == 8
    assert all(torch.bincount(b.obs["way"], minlength=4).max() <= 8 for b in batches)


@pytest.mark.parametrize(("key", "words"), [("x", "Box"), ("nothing", "not in the observation")])
def test_only_discrete_values_tell_a_class(key: str, words: str) -> None:
    with pytest.raises(SettingError, match=rf"memory\.sampler\.key.*{words}"):
        memory(KEYED, key)
    with pytest.raises(SettingError):
        memory(replace(SPECS["vector"], action=spaces.Box(-1, 1, (2,))), "action")
