"""Embedders, middleware and heads joined into one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from coach.architectures.embedder import Embedder
from coach.architectures.encoding import is_image, is_whole
from coach.architectures.head import Head
from coach.architectures.masks import masked
from coach.architectures.middleware import Middleware
from coach.architectures.named import Named
from coach.architectures.noisy import draws
from coach.architectures.normalizers import ObservationNormalizer, RewardScale
from coach.architectures.outputs import Outputs
from coach.architectures.trunk import Trunk, embedders_for, leaf_of, observation_leaves
from coach.core.action_mask import ACTION_MASK, has_mask, without_mask
from coach.core.batch import State, flat, refilled
from coach.core.eager import runs_eagerly
from coach.core.errors import SettingError, nearest
from coach.core.recorder import Recorder
from coach.core.schema import Fraction, Part, PartLike
from coach.core.spec import AnySpace, Spec, require_observation
from coach.core.stream import current_stream
from gymnasium import spaces
from torch import Tensor, nn


class Network(nn.Module):
    """An embedder per observation key, merged, then middleware, then named heads.

    Args:
        embedder: one embedder, or one per key of a Dict observation (nested keys with dots); left
            out, images get nature_cnn and everything else an mlp.
        middleware: between the merged features and the heads.
        heads: name -> head; an agent says which names it needs.
        share_trunk: all heads read one trunk; otherwise each head has its own embedders and
            middleware.
        normalize_observations: scale Box observations by their running mean and deviation; pictures
            of integers are not, for embedders scale these by their bounds.
        normalize_rewards: scale rewards by the deviation of the running return.
        reward_discount: of that return; the memory's discount suits.
    """

    composite: ClassVar[bool] = True
    injected = frozenset({"spec"})
    #: Where its settings stand in a preset; the builder says so.
    key = "agent.network"

    def __init__(
        self,
        spec: Spec,
        heads: Mapping[str, PartLike[Head]],
        embedder: PartLike[Embedder] | Mapping[str, PartLike[Embedder]] | None = None,
        middleware: PartLike[Middleware] = "identity",
        share_trunk: bool = True,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
        reward_discount: Fraction = 0.99,
    ) -> None:
        super().__init__()
        if "state" in heads:
            raise SettingError("heads.state", "outputs have a 'state' already")
        require_observation(spec.observation)
        self.masks = has_mask(spec)
        leaves = observation_leaves(without_mask(spec))
        chosen = embedders_for(leaves, embedder)
        body = Part.of("middleware", middleware, "middleware")
        self.trunk_of = {name: "shared" if share_trunk else name for name in heads}
        normalizers = {
            path: ObservationNormalizer(path, space.shape or ())
            for path, space in leaves.items()
            if normalize_observations and _normalizes(space)
        }
        read = {
            path: normalizers[path].space if path in normalizers else space
            for path, space in leaves.items()
        }
        self.trunks = Named(
            {name: Trunk(read, chosen, body) for name in dict.fromkeys(self.trunk_of.values())}
        )
        parts = {n: Part.of("head", v, f"heads.{n}") for n, v in heads.items()}
        self.heads = Named(
            {
                name: part(features=self.trunks[self.trunk_of[name]].features, spec=spec)
                for name, part in parts.items()
            }
        )
        #: Fixed random functions of the observation, for heads that add one (arXiv:1806.03335).
        self.priors = Named(
            {
                name: head.make_prior(Trunk(leaves, chosen, _without_middleware()))
                for name, head in self.heads.items()
                if isinstance(head, Head) and head.wants_prior
            }
        )
        self.paths = list(leaves)
        self.normalizers = nn.ModuleList(
            normalizers[path] if path in normalizers else nn.Identity() for path in leaves
        )
        self.reward_scale = RewardScale(reward_discount) if normalize_rewards else None
        self.random = draws(self)
        self.recorder = Recorder()

    def forward(self, obs: Any, state: State = None, boundary: Tensor | None = None) -> Outputs:
        """Run every head on observations ``[B, ...]``; from a recording while acting on CPU.

        Args:
            obs: the observations; of several steps, time-major and flattened, if ``state`` has
                fewer rows.
            state: recurrent state before the first step, see `initial_state`.
            boundary: ``[B]`` episodes that end with a row; needed for several steps.
        """
        if state is None and boundary is None and isinstance(obs, Tensor):
            inputs = [obs]
        else:
            inputs = [*flat(obs), *flat(state), *flat(boundary)]
        if not (torch.is_inference_mode_enabled() and inputs[0].is_cpu and runs_eagerly()):
            return self._run(obs, state, boundary)

        def run(tensors: Sequence[Tensor]) -> Outputs:
            following = iter(tensors)
            return self._run(*(refilled(tree, following) for tree in (obs, state, boundary)))

        name = "forward"
        if self.random:  # what is drawn comes from one stream, or there is none
            name += f" drawing from {id(current_stream())}"
        return self.recorder(name, run, inputs)

    def _run(self, obs: Any, state: State, boundary: Tensor | None) -> Outputs:
        parts = [
            normalizer(leaf_of(obs, path)) for path, normalizer in zip(self.paths, self.normalizers)
        ]
        before = state if isinstance(state, dict) else {}
        features = {
            name: trunk(parts, before.get(name), boundary) for name, trunk in self.trunks.items()
        }
        trunk_of = self.trunk_of
        given: dict[str, tuple[Tensor, ...]] = {
            name: (features[trunk_of[name]][0],) for name in self.heads
        }
        if self.priors.names:
            raw = [leaf_of(obs, path) for path in self.paths]
            given |= {name: (*given[name], prior(raw)) for name, prior in self.priors.items()}
        outputs = {name: head(*given[name]) for name, head in self.heads.items()}
        if self.masks:
            outputs = {name: masked(output, obs[ACTION_MASK]) for name, output in outputs.items()}
        after = {name: s for name, (_, s) in features.items() if s is not None}
        return Outputs(outputs, after or None)

    def initial_state(self, num_envs: int) -> State:
        """Recurrent state at the start of an episode, by trunk; ``None`` without recurrence."""
        states = {
            name: trunk.middleware.initial_state(num_envs)  # type: ignore[union-attr, operator]
            for name, trunk in self.trunks.items()
        }
        return {name: state for name, state in states.items() if state is not None} or None

    def require(self, owner: str, **provides: str) -> Network:
        """Check that the heads are those that ``owner`` reads; returns the network.

        Raises:
            SettingError: a head is missing, of the wrong kind, or read by nobody.
        """
        for name, wanted in provides.items():
            if name not in self.heads:
                raise SettingError(
                    f"{self.key}.heads",
                    f"{owner} reads a head called '{name}', but the network has "
                    f"{sorted(self.heads)}",
                    f"{nearest(name, self.heads)} Add `{name}: TYPE` under heads.",
                )
            head = self.heads[name]
            if wanted not in self.provides(name):
                raise SettingError(
                    f"{self.key}.heads.{name}",
                    f"{owner} needs a head that provides {wanted}, but "
                    f"'{getattr(head, 'registered_name', type(head).__name__)}' provides "
                    f"{head.provides}",
                    "`coach list heads` shows them all.",
                )
        for name in self.heads:
            if name not in provides:
                raise SettingError(
                    f"{self.key}.heads.{name}",
                    f"{owner} reads no head called '{name}', so it would never be trained",
                    f"Remove it; the heads that are read: {', '.join(sorted(provides))}.",
                )
        return self

    def doubts(self, key: str) -> list[str]:
        """In words, what of the observation is read by a guess that may be wrong.

        Args:
            key: where the network's settings stand in a preset.
        """
        found = []
        for trunk in self.trunks.values():
            for path, embedder in zip(self.paths, trunk.embedders):  # type: ignore[arg-type]
                doubt = getattr(getattr(embedder, "read", None), "doubt", None)
                if doubt is not None:
                    found.append(f"{'.'.join((key, 'embedder', *path))}: {doubt}")
        return list(dict.fromkeys(found))

    def provides(self, name: str) -> tuple[str, ...]:
        """The kinds of output that a head's can be used as, see `Head.provides`."""
        head = self.heads[name]
        assert isinstance(head, Head)
        return (head.provides, *head.also)


def _without_middleware() -> Part[Middleware]:
    return Part.of("middleware", "identity", "middleware")


def _normalizes(space: AnySpace) -> bool:
    """Whether running statistics are kept of an entry of the observation."""
    return isinstance(space, spaces.Box) and not (is_image(space) and is_whole(space))
