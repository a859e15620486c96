"""Every setting of every registered part: defaults, plain values, refusals (invariant I4)."""

from __future__ import annotations

import math
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.exploration import Exploration
from coach.core.registry import KINDS, entries, find
from coach.core.schema import Built, build_part, parameters
from coach.core.spec import Spec
from coach.explorations.greedy import Greedy
from coach.functional.schedules import Schedule
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from worlds import ACTIONS, MEASURED, OBSERVATIONS

PARTS = [(kind, entry.name) for kind in KINDS for entry in entries(kind)]
SCHEDULES = [name for kind, name in PARTS if kind == "schedule"]


def example(annotation: Any) -> Any:
    """A value for a setting that has no default."""
    if get_origin(annotation) is Annotated:
        return example(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return [example(inner) for inner in get_args(annotation)]
    if get_origin(annotation) is list:
        return [example(get_args(annotation)[0])]
    return {int: 10, float: 0.5, str: "x", bool: True}[annotation]


def required(kind: str, name: str) -> dict[str, Any]:
    """A part's name with just the settings that it cannot do without."""
    needed = {
        key: example(annotation)
        for key, (annotation, default) in parameters(find(kind, name)).items()
        if default is ...
    }
    return {"type": name, **needed}


def built(kind: str, settings: dict[str, Any]) -> Built[Any]:
    """The part for the first pair of spaces that it serves."""
    refusal: SettingError | None = None
    for observation in (OBSERVATIONS["vector"], OBSERVATIONS["stack"], MEASURED):
        for action in ACTIONS.values():
            spec = Spec(observation, action)
            try:
                return build_part(
                    kind,
                    settings,
                    kind,
                    spec=spec,
                    space=spec.observation,
                    features=5,
                    num_envs=2,
                    seed=0,
                )
            except SettingError as error:
                if error.key.removeprefix(f"{kind}.").split(".")[0] in settings:
                    raise  # it is about the settings, not about the spaces
                refusal = refusal or error
    assert refusal is not None
    raise refusal


def numeric(kind: str, name: str) -> list[str]:
    """Settings that take one number (and neither text nor parts)."""

    def is_number(annotation: Any) -> bool:
        inner = get_args(annotation)
        if get_origin(annotation) is Annotated:
            return is_number(inner[0])
        return annotation in (int, float) or (
            type(None) in inner and any(is_number(choice) for choice in inner)
        )

    return [
        k for k, (annotation, _) in parameters(find(kind, name)).items() if is_number(annotation)
    ]


NUMBERS = [(kind, name, key) for kind, name in PARTS for key in numeric(kind, name)]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_defaults_resolve_to_yaml_that_builds_the_same(kind: str, name: str) -> None:
    first = built(kind, required(kind, name))
    assert set(first.plain) == {"type", *parameters(find(kind, name))}
    read = yaml.safe_load(yaml.safe_dump(first.plain))
    assert read == first.plain
    assert built(kind, read).plain == first.plain


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_an_unknown_key_is_refused(kind: str, name: str) -> None:
    with pytest.raises(SettingError) as raised:
        built(kind, {**required(kind, name), "no_such_key": 1})
    assert raised.value.key == f"{kind}.no_such_key"


@pytest.mark.parametrize("value", ["many", True, [1], float("nan")], ids=repr)
@pytest.mark.parametrize(("kind", "name", "key"), NUMBERS)
def test_what_is_no_number_is_refused(kind: str, name: str, key: str, value: Any) -> None:
    with pytest.raises(SettingError) as raised:
        built(kind, {**required(kind, name), key: value})
    assert raised.value.key == f"{kind}.{key}"


@pytest.mark.parametrize("name", SCHEDULES)
@given(step=st.integers(0, 10**12), start=st.integers(1, 10**6))
def test_schedules_stay_within_their_settings(name: str, step: int, start: int) -> None:
    settings = required("schedule", name)
    schedule: Schedule = build_part("schedule", settings, "schedule").value
    value = schedule(step)
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert 0 <= value <= 10  # `example` gives nothing above
    schedule(start)
    assert schedule(step) == value, "a schedule keeps nothing from one call to the next"


@pytest.mark.parametrize(
    ("kind", "name", "setting", "of"),
    [
        ("agent", "dqn", "exploration", "exploration"),
        ("memory", "replay", "sampler", "sampler"),
        ("optimizer", "adam", "lr", "schedule"),
    ],
)
def test_python_callers_may_hand_over_any_part_as_an_object(
    kind: str, name: str, setting: str, of: str
) -> None:
    for entry in entries(of):
        part = built(of, required(of, entry.name))
        try:
            whole = built(kind, {"type": name, setting: part.value})
        except SettingError as error:
            assert "reads" in str(error), error  # noqa: PT017 (an exploration that does not fit)
            continue
        assert getattr(whole.value, setting) is part.value
        assert yaml.safe_load(yaml.safe_dump(whole.plain)) == whole.plain


class Unnamed(Exploration):
    """Registered nowhere."""

    consumes = ("values",)

    def __call__(self, output: Any, ctx: Context) -> Tensor:
        best: Tensor = output.mean.argmax(-1)
        return best


class Inheriting(Greedy):
    """Registered nowhere, unlike the class that it derives from."""


@pytest.mark.parametrize("cls", [Unnamed, Inheriting])
def test_an_object_without_a_name_is_used_but_not_written_down(cls: type[Exploration]) -> None:
    part = cls()
    whole = built("agent", {"type": "dqn", "exploration": part})
    assert whole.value.exploration is part
    assert whole.plain["exploration"] is None
