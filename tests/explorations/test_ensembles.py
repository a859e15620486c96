"""Exploring with an ensemble: a member per episode, votes, optimism."""

from __future__ import annotations

import torch
from coach.core.context import Context
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.functional.values import EnsembleValues
from gymnasium import spaces

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(3))


def context(episodes: list[int], explore: bool = True, seed: int = 0) -> Context:
    rng = torch.Generator().manual_seed(seed)
    ids = torch.arange(len(episodes))
    return Context(0, rng, ids, explore, episodes=lambda: episodes)


def values(every: torch.Tensor) -> EnsembleValues:
    return EnsembleValues(every.mean(0), every)


def exploration(name: str, **settings: float) -> object:
    return build_part("exploration", {"type": name, **settings}, spec=SPEC).value


#: Member m thinks that action m % 3 is best, in 400 environments.
EVERY = torch.eye(3)[torch.arange(6) % 3][:, None, :].expand(6, 400, 3)


def test_a_member_stays_for_an_episode_and_changes_with_it() -> None:
    chosen = exploration("bootstrapped")
    one, two = [3] * 400, [3] * 200 + [4] * 200
    first = chosen(values(EVERY), context(one))  # type: ignore[operator]
    assert torch.equal(first, chosen(values(EVERY), context(one)))  # type: ignore[operator]
    later = chosen(values(EVERY), context(two))  # type: ignore[operator]
    assert torch.equal(first[:200], later[:200])
    assert not torch.equal(first[200:], later[200:])
    counts = torch.bincount(first, minlength=3)
    assert counts.min() > 100  # all of them get their turn
    assert not torch.equal(first, chosen(values(EVERY), context(one, seed=1)))  # type: ignore[operator]


def test_the_members_vote_while_evaluating() -> None:
    every = torch.tensor([[[3.0, 0.0, 1.0]], [[0.0, 2.0, 1.0]], [[0.0, 2.0, 1.0]]])
    chosen = exploration("bootstrapped")(values(every), context([0], explore=False))  # type: ignore[operator]
    assert chosen.tolist() == [1]
    tied = torch.tensor([[[3.0, 0.0, 1.0]], [[0.0, 2.0, 1.0]]])
    chosen = exploration("bootstrapped")(values(tied), context([0], explore=False))  # type: ignore[operator]
    assert chosen.tolist() == [0]  # the larger mean decides


def test_optimism_prefers_what_is_disputed() -> None:
    every = torch.tensor([[[1.0, 0.0, 0.0]], [[1.0, 1.8, 0.0]]])  # means 1, 0.9, 0; deviation 0.9
    for scale, wanted in ((0.0, 0), (0.2, 1)):
        ucb = exploration("ucb", scale=scale)
        assert ucb(values(every), context([0])).tolist() == [wanted]  # type: ignore[operator]
        assert ucb(values(every), context([0], explore=False)).tolist() == [0]  # type: ignore[operator]


def test_random_actions_besides() -> None:
    for name in ("bootstrapped", "ucb"):
        chosen = exploration(name, epsilon=1.0)(values(EVERY), context([0] * 400))  # type: ignore[operator]
        assert torch.bincount(chosen, minlength=3).min() > 90
