"""From plain YAML values to objects: the constructor signature is the schema (invariant I4).

`build` reads a class's constructor: argument names are the keys, annotations convert and check the
values, defaults fill in. A nested mapping becomes a nested part. What a constructor needs but a
preset cannot know (the spec, the number of environments) is *injected*: each contract class lists
the names in its attribute ``injected``. Anything else that does not fit stops with a `SettingError`
naming the key path and the remedy.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from coach.core.errors import SettingError, near_name, nearest
from coach.core.hints import elsewhere
from coach.core.registry import find, plural
from pydantic import ConfigDict, Field, PydanticSchemaGenerationError, TypeAdapter, ValidationError

T = TypeVar("T")

_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]
CountOrZero = Annotated[int, Field(ge=0)]


class Part(Generic[T]):
    """A part that is named and checked now and built later, when its sizes are known.

    Args:
        kind: kind of part, see `coach.core.registry.KINDS`.
        cls: the registered class.
        settings: converted constructor arguments.
        plain: the same as YAML values, defaults included.
        key: path of the setting that names it.
    """

    def __init__(
        self, kind: str, cls: type, settings: dict[str, Any], plain: dict[str, Any], key: str = ""
    ) -> None:
        self.kind, self.cls, self.settings, self.plain = kind, cls, settings, plain
        self.key = key

    def __call__(self, **injected: Any) -> T:
        """Build it. Arguments that the class does not ask for are left out."""
        wanted = inspect.signature(self.cls).parameters
        given = {name: value for name, value in injected.items() if name in wanted}
        part: T = _construct(self.cls, {**self.settings, **given}, self.key)
        return part

    @staticmethod
    def of(kind: str, value: Any, key: str = "") -> Part[Any]:
        """A part from a name, a mapping with ``type:``, or a part."""
        if isinstance(value, Part):
            return value
        name, cls, settings = _named(kind, value, key)
        arguments, plain = _settings(cls, settings, key, {})
        return Part(kind, cls, arguments, {"type": name, **plain}, key)


#: What Python callers may pass for a part; presets pass the last two.
PartLike: TypeAlias = Part[T] | str | Mapping[str, Any]


@dataclass
class Built(Generic[T]):
    """An object and the settings it was built from, defaults included."""

    value: T
    plain: Any


def build(cls: type[T], settings: Any, key: str = "", **injected: Any) -> Built[T]:
    """Build ``cls`` (a section) from plain settings.

    Raises:
        SettingError: an unknown key, a wrong type, a value out of range, a missing argument.
    """
    if settings is None:
        settings = {}
    if not isinstance(settings, Mapping):
        raise SettingError(key, f"expected settings as 'key: value', got {settings!r}")
    arguments, plain = _settings(cls, dict(settings), key, injected)
    return Built(_construct(cls, arguments, key), plain)


def build_part(kind: str, value: Any, key: str = "", **injected: Any) -> Built[Any]:
    """Build the part of ``kind`` that ``value`` names (a name, or a mapping with ``type:``)."""
    name, cls, settings = _named(kind, value, key)
    built: Built[Any] = build(cls, settings, key, **injected)
    return Built(built.value, {"type": name, **built.plain})


def injected_into(cls: type) -> frozenset[str]:
    """Constructor arguments of a class that the builder supplies; they are not settings."""
    names: frozenset[str] = getattr(cls, "injected", frozenset())
    return names


def parameters(cls: type) -> dict[str, tuple[Any, Any]]:
    """Settings of a class: YAML key -> (annotation, default); a missing default is ``...``."""
    try:
        hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    except NameError as error:
        raise SettingError(
            cls.__name__,
            f"an annotation of its constructor is unknown at run time: {error}",
            "Import that name outside of `if TYPE_CHECKING`.",
        ) from error
    return {
        name.rstrip("_"): (
            hints.get(name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for name, parameter in inspect.signature(cls).parameters.items()
        if name not in injected_into(cls)
    }


def _construct(cls: type[T], arguments: dict[str, Any], key: str) -> T:
    try:
        return cls(**arguments)
    except SettingError as error:  # a part knows its own settings, not where in the preset it is
        raise error.under(key) if error.key.split(".")[0] in parameters(cls) else error from None


def _named(kind: str, value: Any, key: str) -> tuple[str, type, dict[str, Any]]:
    settings = {"type": value} if isinstance(value, str) else value
    if not isinstance(settings, Mapping) or not isinstance(settings.get("type"), str):
        raise SettingError(
            key,
            f"expected the name of a {kind} or a mapping with 'type:', got {value!r}",
            f"`coach list {plural(kind)}` shows the names.",
        )
    rest = dict(settings)
    name = rest.pop("type")
    return name, find(kind, name, f"{key}.type" if key else "type"), rest


def _settings(
    cls: type, settings: dict[str, Any], key: str, injected: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    signature = inspect.signature(cls).parameters
    known = parameters(cls)
    for name in settings:
        if name not in known:
            raise SettingError(
                f"{key}.{name}" if key else str(name),
                f"unknown key '{name}'",
                _hint(cls, str(name), key, known),
            )
    arguments: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name in signature:
        public = name.rstrip("_")
        if name in injected_into(cls):
            if name in injected:
                arguments[name] = injected[name]
            continue
        annotation, default = known[public]
        path = f"{key}.{public}" if key else public
        if public not in settings and default is ...:
            raise SettingError(path, "this setting is required", f"Add `{public}: ...`.")
        value = settings.get(public, default)
        built = _convert(annotation, value, path, injected)
        arguments[name], plain[public] = built.value, built.plain
    return arguments, plain


def _hint(cls: type, name: str, key: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown key: a near name, or a setting of another place."""
    other = elsewhere(name, key, frozenset(known))
    close = near_name(name, known, cutoff=0.8)
    if other and close is None:
        return other
    near = nearest(name, known) or f"{cls.__name__} takes no settings."
    return near if close is not None and f"{key}.{close}" in other else f"{near} {other}".strip()


def _convert(annotation: Any, value: Any, key: str, injected: dict[str, Any]) -> Built[Any]:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(annotation), value, key, injected)
    if origin is Part:
        (target,) = get_args(annotation)
        part = Part.of(target.kind, value, key)
        return Built(part, part.plain)
    if origin in (dict, Mapping) and _holds_parts(get_args(annotation)[1]):
        if not isinstance(value, Mapping):
            raise SettingError(key, f"expected a mapping of names to parts, got {value!r}")
        inner = get_args(annotation)[1]
        built = {k: _convert(inner, v, f"{key}.{k}", injected) for k, v in value.items()}
        return Built({k: b.value for k, b in built.items()}, {k: b.plain for k, b in built.items()})
    if _is_contract(annotation):
        return _convert_contract(annotation, value, key, injected)
    return _convert_plain(annotation, value, key)


def _convert_union(
    choices: tuple[Any, ...], value: Any, key: str, injected: dict[str, Any]
) -> Built[Any]:
    if value is None and type(None) in choices:
        return Built(None, None)
    others = [choice for choice in choices if choice is not type(None)]
    holders = [choice for choice in others if _holds_parts(choice)]
    if not holders:
        return _convert_plain(Union[tuple(choices)], value, key)  # noqa: UP007 (built at run time)
    # A mapping without `type:` can only be the choice that is a mapping of parts.
    keyed = isinstance(value, Mapping) and "type" not in value
    mappings = [choice for choice in holders if get_origin(choice) in (dict, Mapping)]
    chosen = mappings if keyed and mappings else [c for c in holders if c not in mappings]
    return _convert(chosen[0], value, key, injected)


def _convert_contract(
    annotation: Any, value: Any, key: str, injected: dict[str, Any]
) -> Built[Any]:
    if isinstance(value, annotation):
        return Built(value, _plain_of(value))
    infer = getattr(annotation, "infer_type", None)
    if infer is not None:
        value = infer(value, key)
    kind = getattr(annotation, "kind", None)
    if kind is None:  # a composite without variants, such as Network
        built = build(annotation, value, key, **injected)
        built.value.key = key
        return built
    return build_part(kind, value, key, **injected)


def _convert_plain(annotation: Any, value: Any, key: str) -> Built[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    except PydanticSchemaGenerationError:
        raise SettingError(key, f"{annotation} cannot be set from a preset") from None
    if _has_bool(value) and not _admits(bool, annotation):  # which pydantic would take for 0 and 1
        raise SettingError(key, f"expected {name_of(annotation)}, got {value}")
    if not _admits(str, annotation):
        value = as_numbers(value)
    try:
        converted = adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise SettingError(
            key,
            f"{problem[0].lower()}{problem[1:]}, got {value!r}",
            f"Expected {name_of(annotation)}.",
        ) from None
    return Built(converted, _to_plain(converted))


def as_numbers(value: Any) -> Any:
    """A value in which texts such as ``1e-4`` are numbers, as PyYAML does not read them."""
    if isinstance(value, list | tuple):
        return [as_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: as_numbers(item) for key, item in value.items()}
    scientific = isinstance(value, str) and _SCIENTIFIC.fullmatch(value)
    return float(value) if scientific else value


def _has_bool(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_has_bool(item) for item in value)
    return isinstance(value, bool)


def _admits(kind: type, annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return any(isinstance(choice, kind) for choice in get_args(annotation))
    return annotation in (kind, Any) or any(_admits(kind, a) for a in get_args(annotation))


def _plain_of(part: Any) -> Any:
    """A built part, such as a default in a signature, as the settings that build it."""
    keys, name = parameters(type(part)), vars(type(part)).get("registered_name")
    if name is None or not all(hasattr(part, key) for key in keys):
        return None  # it has no name, or keeps its settings in another form: Python callers' own
    return {"type": name, **{key: _to_plain(getattr(part, key)) for key in keys}}


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return _plain_of(value) if hasattr(type(value), "registered_name") else value


def _is_contract(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        hasattr(annotation, "kind") or hasattr(annotation, "composite")
    )


def _holds_parts(annotation: Any) -> bool:
    if get_origin(annotation) is Part or _is_contract(annotation):
        return True
    return any(_holds_parts(argument) for argument in get_args(annotation))


def groups_in(annotation: Any) -> list[type]:
    """The groups of settings among what an annotation admits, which are shown one by one.

    A composite that says of itself under which key it stands, as a network does, has a place of its
    own in the documentation.
    """
    if _is_contract(annotation):
        own = hasattr(annotation, "kind") or hasattr(annotation, "key")
        return [] if own else [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [group for choice in get_args(annotation) for group in groups_in(choice)]
    return []


def name_of(annotation: Any) -> str:
    """An annotation in words, for errors and `coach describe`."""
    origin = get_origin(annotation)
    if annotation is type(None):
        return "null"
    if origin is Annotated:
        base, *marks = get_args(annotation)
        field = next((mark for mark in marks if hasattr(mark, "metadata")), None)
        limits = [_limit(item) for item in field.metadata] if field is not None else []
        return f"{name_of(base)} {' and '.join(filter(None, limits))}".strip()
    if origin is Literal:
        return " | ".join(repr(choice) for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        choices = get_args(annotation)
        shown = [c for c in choices if _holds_parts(c) or c is type(None)]
        shown = shown if any(_holds_parts(c) for c in shown) else list(choices)
        return " | ".join(dict.fromkeys(name_of(choice) for choice in shown))
    if origin is Part:
        return str(get_args(annotation)[0].kind)
    if origin is not None:
        inner = ", ".join(name_of(a) for a in get_args(annotation) if a is not ...)
        return f"{getattr(origin, '__name__', origin).lower()} of {inner}"
    if _is_contract(annotation):
        return str(getattr(annotation, "kind", None) or annotation.__name__.lower())
    return {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}.get(
        getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", "any")
    )


def _limit(mark: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return " ".join(
        f"{sign} {getattr(mark, name):g}" for name, sign in signs.items() if hasattr(mark, name)
    )
