"""The constructor signature is the schema: what it accepts, what it refuses, in which words."""

from __future__ import annotations

from typing import Any

import pytest
from coach.agents.dqn import DQN
from coach.core.errors import SettingError, nearest
from coach.core.schema import Count, Fraction, Part, build, build_part, name_of, parameters
from coach.core.spec import Spec
from coach.functional.schedules import Linear, Piecewise, Schedule
from coach.memories.replay import Replay
from coach.memories.samplers.prioritized import Prioritized
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

SPEC = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))


class Section:
    """Settings of all plain kinds."""

    def __init__(
        self,
        size: Count,
        share: Fraction = 0.5,
        rate: Schedule | float = 0.1,
        names: list[str] | None = None,
        flag: bool = False,
        return_: float = 0.0,
    ) -> None:
        self.size, self.share, self.rate = size, share, rate
        self.names, self.flag, self.return_ = names, flag, return_


def test_values_are_converted_by_annotation() -> None:
    built = build(Section, {"size": 3, "share": "1e-2", "rate": "1e-4", "return": 5})
    assert built.value.share == 0.01
    assert isinstance(built.value.rate, Schedule)
    assert built.value.rate(7) == 1e-4
    assert built.value.return_ == 5.0
    assert built.plain["return"] == 5.0


def test_defaults_are_resolved_and_rebuild_the_same() -> None:
    first = build(Section, {"size": 3})
    assert first.plain == {
        "size": 3,
        "share": 0.5,
        "rate": {"type": "constant", "value": 0.1},
        "names": None,
        "flag": False,
        "return": 0.0,
    }
    assert build(Section, first.plain).plain == first.plain


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 3, "shere": 1}, ["s.shere", "Did you mean 'share'?"]),
        ({"size": "three"}, ["s.size", "got 'three'", "whole number > 0"]),
        ({"size": 0}, ["s.size", "greater than 0"]),
        ({"size": 2.5}, ["s.size"]),
        ({"size": True}, ["s.size", "whole number"]),
        ({"size": 3, "share": 1.5}, ["s.share", "<= 1"]),
        ({"size": 3, "share": float("nan")}, ["s.share"]),
        ({"size": 3, "flag": "maybe"}, ["s.flag", "true or false"]),
        ({"size": 3, "rate": "fast"}, ["s.rate", "no schedule called 'fast'"]),
        ({"size": 3, "rate": {"start": 1}}, ["s.rate.end", "required"]),
        ({"size": 3, "rate": {"type": "linear", "start": 1, "end": 0, "step": 3}}, ["'steps'"]),
        ({"size": 3, "names": [1]}, ["s.names"]),
        ({}, ["s.size", "required"]),
        (7, ["s", "expected settings"]),
    ],
)
def test_what_does_not_fit_is_named(settings: Any, words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build(Section, settings, "s")
    for word in words:
        assert word in str(raised.value)


@given(st.text(min_size=1, max_size=12))
def test_unknown_keys_never_pass(key: str) -> None:
    if key not in parameters(Section):
        with pytest.raises(SettingError):
            build(Section, {"size": 1, key: 1})


def test_parts_nest() -> None:
    settings = {"type": "replay", "sampler": {"type": "prioritized", "beta": {"start": 0.4, "end": 1, "steps": 9}}}  # fmt: skip
    built = build_part("memory", settings, "memory", spec=SPEC, num_envs=1, seed=0)
    assert isinstance(built.value, Replay)
    assert isinstance(built.value.sampler, Prioritized)
    assert isinstance(built.value.sampler.beta, Linear)
    assert built.plain["sampler"]["beta"]["type"] == "linear"
    again = build_part("memory", built.plain, "memory", spec=SPEC, num_envs=1, seed=0)
    assert again.plain == built.plain


def test_a_whole_agent_resolves_and_rebuilds() -> None:
    settings = {
        "type": "dqn",
        "network": {"embedder": {"type": "mlp", "hidden": [8]}, "heads": {"q": "dueling_q"}},
        "exploration": {
            "type": "epsilon_greedy",
            "epsilon": {"type": "piecewise", "points": [[0, 1], [9, 0.1]]},
        },  # fmt: skip
    }
    built = build_part("agent", settings, "agent", spec=SPEC)
    assert isinstance(built.value, DQN)
    assert built.plain["network"]["heads"]["q"]["hidden"] == [64]
    assert build_part("agent", built.plain, "agent", spec=SPEC).plain == built.plain


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "dqn", "network": {"heads": {"q": {"type": "q", "huber": 1}}}}, ["agent.network.heads.q.huber", "huber_delta"]),
        ({"type": "dqn", "network": {"heads": {"q": {}}}}, ["agent.network.heads.q", "type"]),
        ({"type": "dqn", "network": {"heads": {"q": "qq"}}}, ["agent.network.heads.q.type", "Did you mean 'q'?"]),
        ({"type": "dqn", "network": {}}, ["agent.network.heads", "required"]),
        ({"type": "dqn", "network": {"heads": {"q": "q"}, "embedder": {"typ": "mlp"}}}, ["agent.network.embedder"]),
        ({"type": "dqn", "exploration": 3}, ["agent.exploration"]),
        ({"type": 3}, ["agent"]),
        ("dqnn", ["agent.type", "Did you mean 'dqn'?"]),
    ],
)  # fmt: skip
def test_wrong_parts_are_named_by_their_path(settings: Any, words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", settings, "agent", spec=SPEC)
    for word in words:
        assert word in str(raised.value)


def test_python_callers_may_pass_objects() -> None:
    schedule = Piecewise([(0, 1.0)])
    assert build(Section, {"size": 1, "rate": schedule}).value.rate is schedule
    part: Part[Any] = Part.of("head", "q")
    assert Part.of("head", part) is part


def test_annotations_read_as_words() -> None:
    words = {name: name_of(hint) for name, (hint, _) in parameters(Section).items()}
    assert words == {
        "size": "whole number > 0",
        "share": "number >= 0 and <= 1",
        "rate": "schedule",
        "names": "list of text | null",
        "flag": "true or false",
        "return": "number",
    }


def test_nearest_names_one_or_all() -> None:
    assert nearest("doubel", ["double", "other"]) == "Did you mean 'double'?"
    assert nearest("zzz", ["b", "a"]) == "Known: a, b."
    assert nearest("zzz", []) == ""
