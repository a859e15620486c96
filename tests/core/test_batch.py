"""The value that experience travels in: trees, indexing, stacking, flattening."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.core.batch import Batch, leaves, map_tree, rebuild
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.text("abc", min_size=1, max_size=3)
TREES = st.recursive(
    st.integers(-9, 9).map(torch.tensor),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def fragment(steps: int = 3, envs: int = 2, offset: float = 0.0) -> Batch:
    """A fragment whose every number tells its place: ``10 * t + n``."""
    place = offset + 10.0 * torch.arange(steps)[:, None] + torch.arange(envs)
    obs = {"a": place, "b": {"c": torch.stack([place, -place], -1)}}
    return Batch(
        obs=obs,
        action=place.long(),
        reward=place,
        discount=torch.ones(steps, envs),
        next_obs=map_tree(lambda leaf: leaf + 10, obs),
        boundary=place == 11,
        extras={"value": place / 2},
        version=7,
        env_ids=torch.tensor([4, 9])[:envs],
    )


@given(TREES)
def test_leaves_and_rebuild_are_inverse(tree: Any) -> None:
    flat = dict(leaves(tree))
    assert leaves(rebuild(tree, flat)) == leaves(tree)
    doubled = map_tree(lambda leaf: leaf * 2, tree)
    assert {k: int(v) for k, v in leaves(doubled)} == {k: 2 * int(v) for k, v in flat.items()}


def test_a_tree_may_be_absent() -> None:
    assert map_tree(torch.clone, None) is None
    assert leaves(None) == []


def test_several_trees_are_mapped_together() -> None:
    one, two = {"a": 1, "b": {"c": 2}}, {"b": {"c": 20}, "a": 10}
    assert map_tree(lambda x, y: x + y, one, two) == {"a": 11, "b": {"c": 22}}


def test_an_index_reaches_everything_that_has_rows() -> None:
    row = fragment()[1, 1]
    assert row.reward == 11
    assert row.action == 11
    assert row.boundary
    assert row.obs["b"]["c"].tolist() == [11, -11]
    assert row.next_obs["a"] == 21
    assert row.extras["value"] == 5.5
    assert row.weight is None
    assert row.version == 7
    part = fragment()[1:]
    assert part.reward.shape == part.obs["a"].shape == (2, 2)
    assert part.env_ids is not None
    assert part.env_ids.tolist() == [4, 9], "ids belong to columns, not to rows"


def test_flat_rows_stand_in_order_of_time() -> None:
    flat = fragment().flatten()
    assert flat.reward.tolist() == [0, 1, 10, 11, 20, 21]
    assert flat.obs["b"]["c"].shape == (6, 2)
    assert len(flat) == flat.steps == 6
    assert (len(fragment()), fragment().steps) == (3, 6)


@pytest.mark.parametrize(("dim", "shape"), [(0, (2, 3, 2)), (1, (3, 2, 2))])
def test_stacking_makes_a_new_dimension(dim: int, shape: tuple[int, ...]) -> None:
    one, two = fragment(), fragment(offset=100.0)
    stacked = Batch.stack([one, two], dim)
    assert stacked.reward.shape == stacked.obs["a"].shape == shape
    assert torch.equal(stacked.extras["value"].select(dim, 1), two.extras["value"])
    assert stacked.weight is None


def test_mapping_leaves_the_original_alone() -> None:
    batch = fragment()
    batch.map(torch.zeros_like)
    assert batch.reward.tolist() == [[0, 1], [10, 11], [20, 21]]
    batch.weight = torch.ones(3, 2)
    mapped = batch.map(lambda tensor: tensor * 2)
    assert (mapped.weight == 2).all()  # type: ignore[union-attr]
    assert (batch.weight == 1).all()


def test_being_there_already_costs_nothing() -> None:
    batch = fragment()
    assert batch.to("cpu").reward is batch.reward


def test_pieces_are_its_rows_in_order() -> None:
    whole = fragment(7, 1).flatten()
    pieces = list(whole.split(3))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    for name in ("reward", "action", "boundary"):
        parts = [getattr(piece, name) for piece in pieces]
        assert torch.equal(torch.cat(parts), getattr(whole, name))
    inner = [piece.obs["b"]["c"] for piece in pieces]
    assert torch.equal(torch.cat(inner), whole.obs["b"]["c"])
    assert pieces[0].weight is None
    assert next(iter(whole.split(7))) is whole


def test_its_tensors_make_the_same_batch_again() -> None:
    whole = fragment()
    again = whole.rebuilt([tensor + 1 for tensor in whole.tensors()])
    assert torch.equal(again.obs["b"]["c"], whole.obs["b"]["c"] + 1)
    assert torch.equal(again.reward, whole.reward + 1)
    assert again.weight is None


def test_the_order_of_keys_makes_no_difference() -> None:
    one = fragment()
    other = fragment()
    one.extras = {"x": torch.ones(2), "y": torch.zeros(2)}
    other.extras = {"y": torch.zeros(2), "x": torch.ones(2)}
    assert all(map(torch.equal, one.tensors(), other.tensors()))
    assert other.rebuilt(one.tensors()).extras["y"].tolist() == [0, 0]
