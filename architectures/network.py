"""Embedders, middleware and heads joined into one module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from coach.architectures.embedder import Embedder
from coach.architectures.encoding import is_image
from coach.architectures.head import Head
from coach.architectures.middleware import Middleware
from coach.architectures.normalizers import ObservationNormalizer, RewardScale
from coach.core.batch import State
from coach.core.errors import SettingError, nearest
from coach.core.schema import Part, PartLike
from coach.core.spec import AnySpace, Spec
from gymnasium import spaces
from torch import Tensor, nn


class Outputs:
    """What a network returns: an attribute per head, and the recurrent ``state`` after the step."""

    def __init__(self, heads: dict[str, Any], state: State) -> None:
        self.__dict__.update(heads)
        self.state = state

    def __getattr__(self, name: str) -> Any:  # reached only where no head has that name
        raise AttributeError(f"this network has no head '{name}'; it has {sorted(self.__dict__)}")


class Network(nn.Module):
    """An embedder per observation key, merged, then middleware, then named heads.

    Args:
        embedder: one embedder, or one per key of a Dict observation (nested keys with dots); left
            out, images get nature_cnn and everything else an mlp.
        middleware: between the merged features and the heads.
        heads: name -> head; an agent says which names it needs.
        share_trunk: all heads read one trunk; otherwise each head has its own embedders and
            middleware.
        normalize_observations: scale float observations by their running mean and deviation.
        normalize_rewards: scale rewards by the deviation of the running return.
    """

    composite: ClassVar[bool] = True
    injected = frozenset({"spec"})

    def __init__(
        self,
        spec: Spec,
        heads: Mapping[str, PartLike[Head]],
        embedder: PartLike[Embedder] | Mapping[str, PartLike[Embedder]] | None = None,
        middleware: PartLike[Middleware] = "identity",
        share_trunk: bool = True,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
    ) -> None:
        super().__init__()
        keys = observation_keys(spec.observation)
        chosen = _embedders(keys, embedder)
        body = Part.of("middleware", middleware, "middleware")
        names = list(heads)
        self.trunk_of = dict.fromkeys(names, "shared") if share_trunk else {n: n for n in names}
        self.trunks = nn.ModuleDict(
            {name: Trunk(keys, chosen, body) for name in dict.fromkeys(self.trunk_of.values())}
        )
        self.heads = nn.ModuleDict()
        for name, value in heads.items():
            trunk = self.trunks[self.trunk_of[name]]
            part = Part.of("head", value, f"heads.{name}")
            self.heads[name] = part(features=trunk.features, spec=spec)
        self.normalizers = nn.ModuleDict()
        if normalize_observations:
            for key, space in keys.items():
                if isinstance(space, spaces.Box) and space.dtype != np.uint8:
                    path = tuple(key.split(".")) if key else ()
                    name = key.replace(".", "/") or "observation"
                    self.normalizers[name] = ObservationNormalizer(path, space.shape)
        self.reward_scale = RewardScale() if normalize_rewards else None
        self._keys = list(keys)

    def forward(self, obs: Any, state: State = None) -> Outputs:
        """Run every head on observations ``[B, ...]``."""
        parts = self._split(obs)
        shared: dict[str, tuple[Tensor, State]] = {
            name: trunk(parts, state) for name, trunk in self.trunks.items()
        }
        after = next(iter(shared.values()))[1]
        return Outputs(
            {name: head(shared[self.trunk_of[name]][0]) for name, head in self.heads.items()},
            after,
        )

    def initial_state(self, num_envs: int) -> State:
        """Recurrent state at the start of an episode."""
        trunk = next(iter(self.trunks.values()))
        assert isinstance(trunk, Trunk)
        return trunk.middleware.initial_state(num_envs)

    def require(self, owner: str, **provides: str) -> Network:
        """Check that the named heads exist and give what ``owner`` reads; returns the network.

        Raises:
            SettingError: a head is missing or of the wrong kind.
        """
        for name, wanted in provides.items():
            head = dict(self.heads.items()).get(name)
            if head is None:
                raise SettingError(
                    "agent.network.heads",
                    f"{owner} reads a head called '{name}', but the network has "
                    f"{sorted(self.heads)}",
                    f"{nearest(name, self.heads)} Add `{name}: TYPE` under heads.",
                )
            if head.provides != wanted:
                raise SettingError(
                    f"agent.network.heads.{name}",
                    f"{owner} needs a head that provides {wanted}, but "
                    f"'{getattr(head, 'registered_name', type(head).__name__)}' provides "
                    f"{head.provides}",
                    "`coach list heads` shows them all.",
                )
        return self

    def _split(self, obs: Any) -> list[Tensor]:
        parts = []
        for key in self._keys:
            part = obs
            for name in key.split(".") if key else ():
                part = part[name]
            normalizer = key.replace(".", "/") or "observation"
            if normalizer in self.normalizers:
                part = self.normalizers[normalizer](part)
            parts.append(part)
        return parts


class Trunk(nn.Module):
    """Embedders of all observation keys, concatenated, and the middleware behind them."""

    def __init__(
        self,
        keys: Mapping[str, AnySpace],
        embedders: Mapping[str, Part[Embedder]],
        middleware: Part[Middleware],
    ) -> None:
        super().__init__()
        self.embedders = nn.ModuleList(embedders[key](space=space) for key, space in keys.items())
        merged = sum(embedder.features for embedder in self.embedders)  # type: ignore[misc]
        self.middleware: Middleware = middleware(features=merged)
        self.features = self.middleware.outputs

    def forward(self, parts: list[Tensor], state: State) -> tuple[Tensor, State]:
        embedded = [embedder(part) for embedder, part in zip(self.embedders, parts)]
        merged = embedded[0] if len(embedded) == 1 else torch.cat(embedded, -1)
        after: tuple[Tensor, State] = self.middleware(merged, state)
        return after


def observation_keys(space: AnySpace, prefix: str = "") -> dict[str, AnySpace]:
    """The leaf spaces of an observation by dotted path; one empty path if it is no Dict."""
    if not isinstance(space, spaces.Dict):
        return {prefix: space}
    found: dict[str, AnySpace] = {}
    for key, inner in space.spaces.items():
        found.update(observation_keys(inner, f"{prefix}.{key}" if prefix else str(key)))
    return found


def _embedders(keys: Mapping[str, AnySpace], embedder: Any) -> dict[str, Part[Embedder]]:
    if embedder is None:
        embedder = {}
    per_key = isinstance(embedder, Mapping) and "type" not in embedder
    if not per_key:
        part: Part[Embedder] = Part.of("embedder", embedder, "embedder")
        return dict.fromkeys(keys, part)
    for name in embedder:
        if name not in keys:
            raise SettingError(
                f"agent.network.embedder.{name}",
                f"the observation has no key '{name}'",
                nearest(name, keys)
                if keys != {"": keys.get("")}
                else "This observation is no Dict: write one embedder, {type: ...}.",
            )
    return {
        key: Part.of(
            "embedder",
            embedder.get(key, "nature_cnn" if is_image(space) else "mlp"),
            f"embedder.{key}",
        )
        for key, space in keys.items()
    }
