"""What a function of tensors does, operation by operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

import torch
from coach.core.dispatch import Watch
from torch import Tensor
from torch.utils._pytree import tree_leaves

#: Identifies the memory that a tensor, or several that are views of each other, lies in.
Place: TypeAlias = int

_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# These read the shape and type of a tensor, never what is in it.
_BY_SHAPE = {f"{kind}_like" for kind in ("zeros", "ones", "full")} | {
    f"new_{kind}" for kind in ("zeros", "ones", "full")
}
_BYTE_TYPES = (torch.bool, torch.uint8)


class NotRecordableError(Exception):
    """A function does what cannot be made again without it; the message says what."""


@dataclass
class Call:
    """One operation, with the very tensors that it worked on."""

    function: Any  # an OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]
    inputs: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = tensors_in((self.args, self.kwargs))
        self.name: str = self.function.overloadpacket.__name__
        self.reads = {place_of(tensor) for tensor in self.inputs}
        self.writes = {
            place_of(tensor)
            for argument, value in self._given()
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tensors_in(value)
        }
        self.made = {place_of(tensor) for tensor in self.outputs} - self.reads
        self.random = torch.Tag.nondeterministic_seeded in self.function.tags

    @property
    def is_view(self) -> bool:
        """It only looks at memory in another way; the tensor it made goes on doing so."""
        return not self.writes and not self.made

    def check(self) -> None:
        tags = self.function.tags
        fetches = torch.Tag.data_dependent_output in tags
        dynamic = torch.Tag.dynamic_output_shape in tags
        if self.name == "index":
            dynamic = any(t.dtype in _BYTE_TYPES for t in tensors_in(self.args[1]))
        if fetches or dynamic:
            what = "fetches a number from a tensor" if fetches else "makes a tensor of unknown size"
            raise NotRecordableError(f"it {what} ({self.function})")
        if self.made and len(self.made) < len({place_of(t) for t in self.outputs}):
            raise NotRecordableError(f"it returns both old and new memory ({self.function})")

    def _given(self) -> Iterator[tuple[Any, Any]]:
        arguments = self.function._schema.arguments
        yield from zip(arguments, self.args)
        for argument in arguments:
            if argument.name in self.kwargs:
                yield argument, self.kwargs[argument.name]


class Tape(Watch):  # type: ignore[no-untyped-call]
    """Notes every operation, those of autograd too.

    Args:
        most_bytes: that operations may make, all together: a tape keeps everything alive.
    """

    def __init__(self, most_bytes: float = inf) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._room = most_bytes
        #: Random generators that were drawn from, and their states before.
        self.before: dict[torch.Generator, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            raise NotRecordableError(f"it calls {func}, which is no plain operation")
        if torch.Tag.nondeterministic_seeded in func.tags:
            generator = kwargs.get("generator") or torch.default_generator
            if generator not in self.before:
                self.before[generator] = generator.get_state()
        result = func(*args, **kwargs)
        call = Call(func, args, kwargs, tensors_in(result))
        call.check()
        self.calls.append(call)
        if call.made:
            self._room -= sum(tensor.untyped_storage().nbytes() for tensor in call.outputs)
            if self._room < 0:
                raise NotRecordableError("it makes too many large tensors")
        return result

    def found(self) -> list[Tensor]:
        """Tensors that were there before."""
        made = {id(tensor) for call in self.calls for tensor in call.outputs}
        seen = {id(tensor): tensor for call in self.calls for tensor in call.inputs}
        return [tensor for number, tensor in seen.items() if number not in made]

    def outside(self) -> set[Place]:
        """Memory that was there before."""
        made = {place for call in self.calls for place in call.made}
        return {place for call in self.calls for place in call.reads} - made

    def rewind(self) -> None:
        """Set the generators back."""
        for generator, state in self.before.items():
            generator.set_state(state)


def needed(calls: list[Call], outputs: Sequence[Tensor], writes: Sequence[Tensor]) -> list[Call]:
    """Those calls whose results depend on the inputs and are of use.

    Raises:
        NotRecordableError: memory is written that was there before and is not among ``writes``.
    """
    allowed = {place_of(tensor) for tensor in writes}
    written = {place for call in calls for place in call.writes}
    made = {place for call in calls for place in call.made}
    for call in calls:
        if call.writes - made - allowed:
            raise NotRecordableError(f"it writes tensors that outlive it ({call.function})")
    constant: set[Place] = set()
    live: list[Call] = []
    for call in calls:
        settled = call.name in _BY_SHAPE or call.reads <= constant
        if settled and not call.random and not call.writes and not call.made & written:
            constant |= call.made
        elif not call.is_view and call.name not in _EMPTY:
            live.append(call)
    wanted, found = {place_of(tensor) for tensor in outputs} | allowed, []
    for call in reversed(live):
        if call.random or (call.made | call.writes) & wanted:
            found.append(call)
            if call.name not in _BY_SHAPE:
                wanted = wanted | call.reads
    return found[::-1]


def read_by(calls: list[Call]) -> set[Place]:
    """Memory whose contents the calls read."""
    return {place for call in calls if call.name not in _BY_SHAPE for place in call.reads}


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def place_of(tensor: Tensor) -> Place:
    """The memory that a tensor lies in."""
    place: int = tensor.untyped_storage()._cdata
    return place
