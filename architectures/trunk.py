"""Embedders of all observation keys, merged, and the middleware behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from coach.architectures.embedder import Embedder
from coach.architectures.encoding import is_image
from coach.architectures.middleware import Middleware
from coach.core.batch import State
from coach.core.errors import SettingError, nearest
from coach.core.schema import Part
from coach.core.spec import AnySpace
from gymnasium import spaces
from torch import Tensor, nn

#: Where a leaf lies in a (nested) Dict observation; empty for an observation that is no Dict.
Path = tuple[str, ...]


class Trunk(nn.Module):
    """One embedder per leaf of the observation, concatenated, then middleware.

    Args:
        leaves: the leaf spaces of the observation, see `observation_leaves`.
        embedders: an embedder for each of them.
        middleware: behind them.
    """

    def __init__(
        self,
        leaves: Mapping[Path, AnySpace],
        embedders: Mapping[Path, Part[Embedder]],
        middleware: Part[Middleware],
    ) -> None:
        super().__init__()
        self.embedders = nn.ModuleList(embedders[path](space=leaves[path]) for path in leaves)
        merged = sum(embedder.features for embedder in self.embedders)  # type: ignore[misc]
        self.middleware: Middleware = middleware(features=merged)
        self.features = self.middleware.outputs

    def forward(
        self, parts: list[Tensor], state: State, boundary: Tensor | None
    ) -> tuple[Tensor, State]:
        embedded = [embedder(part) for embedder, part in zip(self.embedders, parts)]
        merged = embedded[0] if len(embedded) == 1 else torch.cat(embedded, -1)
        after: tuple[Tensor, State] = self.middleware(merged, state, boundary)
        return after


def observation_leaves(space: AnySpace, path: Path = ()) -> dict[Path, AnySpace]:
    """The leaf spaces of an observation by path; one empty path if it is no Dict."""
    if not isinstance(space, spaces.Dict):
        return {path: space}
    return {
        inner: leaf
        for key, value in space.spaces.items()
        for inner, leaf in observation_leaves(value, (*path, str(key))).items()
    }


def leaf_of(obs: Any, path: Path) -> Tensor:
    """The tensor at ``path`` of a (nested) observation."""
    for key in path:
        obs = obs[key]
    leaf: Tensor = obs
    return leaf


def embedders_for(leaves: Mapping[Path, AnySpace], wanted: Any) -> dict[Path, Part[Embedder]]:
    """An embedder for every leaf: the one wanted for all, or by dotted key, or a fitting one.

    Raises:
        SettingError: a key that the observation does not have, or one that two paths share.
    """
    if wanted is not None and (not isinstance(wanted, Mapping) or "type" in wanted):
        part: Part[Embedder] = Part.of("embedder", wanted, "embedder")
        return dict.fromkeys(leaves, part)
    by_name = {".".join(path): path for path in leaves}
    if len(by_name) < len(leaves):
        raise SettingError(
            "environment",
            f"two keys of the observation {sorted(by_name)} read the same once nested keys are "
            "joined with dots",
            "Rename one of them in the environment, or in a wrapper of your own.",
        )
    for name in wanted or {}:
        if name not in by_name:
            raise SettingError(
                f"embedder.{name}",
                f"the observation has no key '{name}'",
                "This observation is no Dict: write one embedder, {type: ...}."
                if list(leaves) == [()]
                else nearest(name, by_name),
            )
    chosen = {}
    for name, path in by_name.items():
        fitting = "nature_cnn" if is_image(leaves[path]) else "mlp"
        value = (wanted or {}).get(name, fitting)
        chosen[path] = Part.of("embedder", value, f"embedder.{name}")
    return chosen
