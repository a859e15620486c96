"""Values taken apart into their tensors, to be put together again from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

from torch import Tensor

#: Makes a value of tensors, in the order in which `take_apart` found them.
Assemble: TypeAlias = Callable[[Sequence[Tensor]], Any]

_PLAIN = (bool, int, float, str, bytes, type(None))


def take_apart(value: Any) -> tuple[list[Tensor], Assemble]:
    """The tensors in a value, and how to make another such value of others.

    Tensors may lie in lists, tuples, dicts and the attributes of objects.

    Raises:
        TypeError: somewhere in it is something else, in which tensors could hide.
    """
    found: list[Tensor] = []
    return found, _assembler(value, found)


def _assembler(value: Any, found: list[Tensor]) -> Assemble:
    if isinstance(value, Tensor):
        found.append(value)
        return itemgetter(len(found) - 1)
    if isinstance(value, _PLAIN):
        return lambda _: value
    kind: Any = type(value)
    if kind is dict or (hasattr(value, "__dict__") and not callable(value)):
        whole = value if kind is dict else vars(value)
        if kind is not dict:
            kind.__new__(kind)  # raises TypeError if it cannot be made like this
        varying = {name: part for name, part in whole.items() if not isinstance(part, _PLAIN)}
        parts = [(name, _assembler(part, found)) for name, part in varying.items()]
        template: dict[Any, Any] = whole | dict.fromkeys(varying)  # names keep their order

        def filled(tensors: Sequence[Tensor]) -> dict[Any, Any]:
            made = template.copy()
            for name, part in parts:
                made[name] = part(tensors)
            return made

        if kind is dict:
            return filled

        def assemble(tensors: Sequence[Tensor]) -> Any:
            made = kind.__new__(kind)
            made.__dict__.update(filled(tensors))
            return made

        return assemble
    if kind in (list, tuple):
        items = [_assembler(item, found) for item in value]
        return lambda tensors: kind(item(tensors) for item in items)
    raise TypeError(f"a {kind.__name__} may hide tensors")
