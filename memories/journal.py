"""Saving and restoring ring storage piece by piece, each row once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coach.core.batch import leaves, map_tree, rebuild
from coach.core.layout import named_leaves, observation_layout
from coach.core.state import prefixed, under
from coach.memories.observations import put, restored, take
from coach.memories.observations import saved as saved_observations
from coach.memories.stripes import BOUNDARY, Stripes
from torch import Tensor


def rows_since(stripes: Stripes, saved: list[int]) -> tuple[dict[str, Tensor], list[int]]:
    """Rows held that were written after the positions ``saved``, and the new positions."""
    if not stripes.allocated:
        return {}, stripes.written.tolist()
    begin = np.maximum(stripes.written - stripes.counts, saved or 0)
    index = _between(stripes, begin, stripes.written)
    at = torch.from_numpy(index)
    tensors = {"begin": torch.from_numpy(begin), "end": torch.from_numpy(stripes.written.copy())}
    obs = saved_observations(stripes.ring, index, _first_of(begin, stripes.written))
    tensors |= {_of_obs(name): torch.from_numpy(rows) for name, rows in obs.items()}
    tensors |= {"action": stripes.action[at], "outcome": stripes.outcome[at]}
    tensors |= {f"kept.{name}": table[at] for name, table in stripes.kept.items()}
    ended = at[stripes.outcome[at, BOUNDARY] > 0]
    finals = map_tree(torch.from_numpy, stripes.finals.of(ended.numpy()))
    tensors |= named_leaves(finals, "final")
    return tensors, stripes.written.tolist()


def load_rows(stripes: Stripes, tensors: dict[str, Tensor]) -> None:
    """Put rows from `rows_since` back; later calls overwrite what a full ring has dropped."""
    begin, end = tensors["begin"].numpy(), tensors["end"].numpy()
    named = {name: rows.numpy() for name, rows in under(_of_obs("") + ".", tensors).items()}
    if _of_obs("") in tensors:
        named[""] = tensors[_of_obs("")].numpy()
    obs = restored(observation_layout(stripes.spec.observation), named)
    if not stripes.allocated:
        first = int(end[0] - begin[0])  # rows of the first stripe follow each other
        before = map_tree(lambda a: a[: max(first - 1, 0)], obs)
        stripes.allocate(before, map_tree(lambda a: a[1:first], obs))
    index = _between(stripes, begin, end)
    # The ring drops the row behind the newest too, and its final observation with it.
    stripes.finals.drop(np.concatenate([index, _at(stripes, end)]))
    at = torch.from_numpy(index)
    done = 0
    for env, (low, high) in enumerate(zip(begin.tolist(), end.tolist())):
        if high > low:
            rows = np.arange(low, high) % stripes.rows
            part = slice(done, done + high - low)
            values = map_tree(lambda a: a[None, part], obs)  # noqa: B023
            put(stripes.ring, slice(env, env + 1), rows, values)
            done += high - low
    stripes.action[at] = tensors["action"]
    stripes.outcome[at] = tensors["outcome"]
    for name, table in stripes.kept.items():
        table[at] = tensors[f"kept.{name}"]
    ended = (tensors["outcome"][:, BOUNDARY] > 0).numpy()
    if ended.any():
        finals = map_tree(lambda t: t.numpy(), _named(stripes, tensors, "final"))
        stripes.finals.keep(index[ended], finals)
    stripes.written = end.copy()


def state_dict(stripes: Stripes) -> dict[str, Any]:
    """Positions, and the observation to come of every stripe."""
    state: dict[str, Any] = {"written": stripes.written.tolist()}
    if stripes.first.any():
        state["first"] = stripes.first.tolist()
    if stripes.allocated:
        coming = take(stripes.ring, _at(stripes, stripes.written))
        state |= named_leaves(map_tree(torch.from_numpy, coming), "coming")
        state |= prefixed("seams.", stripes.seams.state_dict(stripes))
    return state


def load_state_dict(stripes: Stripes, state: dict[str, Any]) -> None:
    """Restore `state_dict`, after the rows."""
    stripes.written = np.asarray(state["written"], np.int64)
    stripes.first = np.asarray(state.get("first", np.zeros_like(stripes.written)), np.int64)
    if stripes.written.any():
        coming = map_tree(lambda t: t.numpy(), _named(stripes, state, "coming"))
        for env, position in enumerate(stripes.written.tolist()):
            value = map_tree(lambda a: a[None, env : env + 1], coming)  # noqa: B023
            rows = np.array([position % stripes.rows])
            put(stripes.ring, slice(env, env + 1), rows, value)
        stripes.seams.load_state_dict(stripes, under("seams.", state))


def _at(stripes: Stripes, position: Any) -> Any:
    """Indices of one position per stripe."""
    return np.arange(stripes.num_envs) * stripes.rows + position % stripes.rows


def _between(stripes: Stripes, begin: Any, end: Any) -> Any:
    """Indices of a range of positions per stripe, one stripe after the other."""
    ranges = [np.arange(b, e) % stripes.rows for b, e in zip(begin, end)]
    return np.concatenate([env * stripes.rows + rows for env, rows in enumerate(ranges)])


def _first_of(begin: Any, end: Any) -> Any:
    """Which of the indices of `_between` are the first ones of their stripes."""
    first = np.zeros(int((end - begin).sum()), bool)
    starts = np.concatenate([[0], (end - begin).cumsum()[:-1]])
    first[starts[end > begin]] = True
    return first


def _of_obs(name: str) -> str:
    return f"obs.{name}" if name else "obs"


def _named(stripes: Stripes, tensors: dict[str, Any], prefix: str) -> Any:
    layout = observation_layout(stripes.spec.observation)
    flat = {path: tensors[f"{prefix}.{path}" if path else prefix] for path, _ in leaves(layout)}
    return rebuild(layout, flat)
