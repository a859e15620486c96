"""Functions of tensors, recorded as the operations they come down to.

For small networks most of an update is not arithmetic but the way to it: modules, autograd, shapes,
allocations. All of that leads to the same operations on the same memory every time. A `Recording`
notes them once and makes them again, in their order and into the same memory: what a CUDA graph is
on a GPU. The results are the same to the last bit; see docs/recording.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from coach.core import blas
from coach.core.tape import (
    Call,
    NotRecordableError,
    Place,
    Tape,
    needed,
    place_of,
    read_by,
    tensors_in,
)
from torch import Tensor
from torch.utils._pytree import tree_map_only

# torch's own functions cost half as much to call as the operators behind them.
_BUILTINS: tuple[Any, ...] = (torch._C._VariableFunctions, torch._C._nn)
# What a function may make while it is noted, in terms of what its recording may hold: memory is
# used again only later.
_MADE = 8
# Of these the result is exactly rounded, so a number may as well be a tensor.
_ROUNDED = ("add", "sub", "mul", "div", "lt", "le", "gt", "ge", "eq", "ne")


class Recording:
    """Makes the operations of a function again, on other inputs.

    It holds while `fits` says so, and for functions that depend on nothing but their inputs, random
    generators and the contents of tensors that stay where they are.

    Args:
        function: reads ``inputs``, these very tensors, and returns tensors.
        inputs: belong to the recording from now on.
        writes: tensors outside of it that the function may write, whole or by views of them.
        most_bytes: that the recording may hold.
        pool: memory of other recordings, which never run at the same time; what this one takes
            beside is added.

    Raises:
        NotRecordableError: the function fetches numbers from tensors, makes tensors whose shape
            depends on such numbers, writes what it may not, or needs too much memory. Random
            generators are then as they were.
    """

    def __init__(
        self,
        function: Callable[[], Sequence[Tensor]],
        inputs: Sequence[Tensor],
        writes: Sequence[Tensor] = (),
        most_bytes: float = float("inf"),
        pool: list[torch.UntypedStorage] | None = None,
    ) -> None:
        tape = Tape(_MADE * most_bytes)
        try:
            with tape:
                outputs = function()
            calls = needed(tape.calls, outputs, writes)
            fixed = {place_of(tensor) for tensor in chain(inputs, outputs)}
            memory = _Memory(calls, fixed, pool or [])
            if memory.nbytes > most_bytes:
                raise NotRecordableError(f"it works on {memory.nbytes / 2**20:.0f} MiB")
        except NotRecordableError:
            tape.rewind()
            raise
        if pool is not None:
            pool += memory.taken
        self.generators, self.nbytes = list(tape.before), memory.nbytes
        read = read_by(calls)
        outside = tape.outside() - {place_of(tensor) for tensor in chain(inputs, writes)}
        found = [tensor for tensor in tape.found() if place_of(tensor) in outside & read]
        self._outside = [*found, *writes]  # of what is written there may be many views
        self._addresses = [tensor.data_ptr() for tensor in self._outside]
        used = read | {place_of(tensor) for tensor in outputs}
        self._used = [n for n, tensor in enumerate(inputs) if place_of(tensor) in used]
        self._inputs = [inputs[n].detach() for n in self._used]
        self._outputs = [tensor.detach() for tensor in outputs]
        self._without_autograd = torch.inference_mode()
        with torch.no_grad():
            tape.rewind()  # and make every call once more, so that each can be tried
            self._calls = [_bound(call, memory) for call in memory.calls]
        self._names = [call.name for call in memory.calls]

    def __len__(self) -> int:
        """How many operations it makes."""
        return len(self._calls)

    @property
    def operations(self) -> list[tuple[str, Callable[[], Any]]]:
        """What it consists of, by name, to be timed for example."""
        return list(zip(self._names, self._calls))

    def fits(self) -> bool:
        """Whether the tensors outside still lie where they did."""
        return list(map(Tensor.data_ptr, self._outside)) == self._addresses

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What the function returns for other inputs of the same shapes and types; copies."""
        if not torch.is_inference_mode_enabled():  # entering it twice is not free
            with self._without_autograd:
                return self(inputs)
        if len(self._used) == 1:
            self._inputs[0].copy_(inputs[self._used[0]])
        elif self._used:
            torch._foreach_copy_(self._inputs, [inputs[n] for n in self._used])
        for call in self._calls:
            call()
        return self.results()

    def results(self) -> list[Tensor]:
        """What came of the last call; copies."""
        return list(map(Tensor.clone, self._outputs))


class _Memory:
    """Where the tensors of a recording lie.

    What is no longer needed makes room for what comes later, so that a recording holds, and its
    caches see, no more than the function itself would take; number by number, results may even lie
    where one of the numbers lay that they are made of. Tensors that are only made to be copied
    elsewhere are made there.

    Args:
        calls: that are to be made again.
        fixed: places that must stay as they are.
        pool: memory to begin with.
    """

    def __init__(
        self, calls: list[Call], fixed: set[Place], pool: list[torch.UntypedStorage]
    ) -> None:
        self._homes: dict[Place, tuple[torch.UntypedStorage, int]] = {}
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        self.taken: list[torch.UntypedStorage] = []
        self.calls = self._without_copies(calls, fixed)
        self._settle(fixed, pool)

    def __call__(self, tree: Any) -> Any:
        """The same tensors without their history, where they lie from now on."""
        return tree_map_only(Tensor, self._moved, tree)

    def _moved(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._known:
            moved, home = tensor.detach(), self._homes.get(place_of(tensor))
            if home is not None:
                storage, start = home
                begin = start // tensor.itemsize + tensor.storage_offset()
                moved = tensor.new_empty(0, requires_grad=False)
                moved.set_(storage, begin, tensor.shape, tensor.stride())
            self._known[id(tensor)] = (tensor, moved)  # the first keeps its id from being reused
        return self._known[id(tensor)][1]

    def _without_copies(self, calls: list[Call], fixed: set[Place]) -> list[Call]:
        """Make tensors where they would be copied to, if nobody else looks at that memory."""
        touched: dict[Place, int] = {}
        for place in (place for call in calls for place in call.reads | call.writes):
            touched[place] = touched.get(place, 0) + 1
        made = {place for call in calls for place in call.made} - fixed
        kept: list[Call] = []
        for call in calls:
            if call.name != "_foreach_copy_":
                kept.append(call)
                continue
            pairs = []
            for target, source in zip(*call.args):
                place, home = place_of(source), target.untyped_storage()
                whole = source.nbytes == source.untyped_storage().nbytes()
                alike = source.dtype == target.dtype and source.shape == target.shape
                straight = source.is_contiguous() and target.is_contiguous()
                alone = touched[place_of(target)] == 1 and place not in self._homes
                if place in made and whole and alike and straight and alone:
                    self._homes[place] = (home, target.storage_offset() * target.itemsize)
                else:
                    pairs.append((target, source))
            if pairs:
                lists = tuple(map(list, zip(*pairs)))
                kept.append(Call(call.function, lists, call.kwargs, []))
        return kept

    def _settle(self, fixed: set[Place], pool: list[torch.UntypedStorage]) -> None:
        """Find a home for every place: one that is free from its first use to its last."""
        begins: dict[Place, int] = {}
        ends: dict[Place, int] = {}
        storages: dict[Place, torch.UntypedStorage] = {}
        for number, call in enumerate(self.calls):
            for tensor in chain(call.outputs, call.inputs):
                storages[place_of(tensor)] = tensor.untyped_storage()
            for place in call.made | call.reads | call.writes:
                begins.setdefault(place, number)
                ends[place] = number
        made = {place for call in self.calls for place in call.made}
        mine = [p for p in begins if p in made and p not in fixed and p not in self._homes]
        settled: set[Place] = set()
        free = list(pool)
        taken: list[tuple[int, torch.UntypedStorage]] = []
        self.nbytes = sum(storages[place].nbytes() for place in fixed if place in storages)
        for place in mine:  # in the order in which they begin
            settled.add(place)
            begin = begins[place]
            over = _overwritable(self.calls[begin], place)
            if before := [p for p in over if p in settled and ends[p] == begin]:
                self._homes[place] = self._homes[before[0]]
                shared, _ = self._homes[place]
                taken = [(ends[place] if it is shared else end, it) for end, it in taken]
                continue
            done = [pair for pair in taken if pair[0] < begin]
            taken = [pair for pair in taken if pair[0] >= begin]
            free += [storage for _, storage in done]
            size = storages[place].nbytes()
            fitting = [storage for storage in free if size <= storage.nbytes() <= 2 * size + 64]
            home = min(fitting, key=lambda storage: storage.nbytes(), default=None)
            if home is None:
                home = storages[place]
                self.nbytes += size
                self.taken.append(home)
            else:
                free = [storage for storage in free if storage is not home]
            taken.append((ends[place], home))
            self._homes[place] = (home, 0)


def _overwritable(call: Call, result: Place) -> list[Place]:
    """Of what a call reads, the places that it may as well write its ``result`` to."""
    if torch.Tag.pointwise not in call.function.tags or call.made != {result}:
        return []
    made, places = call.outputs[0], [place_of(tensor) for tensor in call.inputs]
    size = made.untyped_storage().nbytes()
    form = (made.shape, made.stride(), made.dtype)
    return [
        place
        for tensor, place in zip(call.inputs, places)
        if (tensor.shape, tensor.stride(), tensor.dtype) == form
        and made.nbytes == size == tensor.untyped_storage().nbytes()
        and places.count(place) == 1
    ]


def _bound(call: Call, memory: _Memory) -> Callable[[], Any]:
    """The cheapest way to make a call that gives the same bits; it has been made once then."""
    args, kwargs, outputs = memory(call.args), memory(call.kwargs), memory(call.outputs)
    again: Callable[[], Any] | None = blas.by_arrays(call.function, args, outputs)
    if again is not None:
        again()
        return again
    if call.writes:
        method = getattr(args[0], call.name, None)
        again = (
            partial(call.function, *args, **kwargs)
            if method is None
            else partial(method, *args[1:], **kwargs)
        )
        again()
        return again
    generator = kwargs.get("generator") or torch.default_generator
    state = generator.get_state() if call.random else None
    truth = tensors_in(call.function(*args, **kwargs))
    places = {place_of(tensor) for tensor in outputs}
    lost = [(t, t.clone()) for t in tensors_in((args, kwargs)) if place_of(t) in places]
    for candidate in _candidates(call, args, kwargs, outputs):
        if state is not None:
            generator.set_state(state)
        for tensor, kept in lost:  # its memory is that of the result
            tensor.copy_(kept)
        try:
            candidate()
        except (TypeError, RuntimeError):
            continue
        if all(map(same_bits, outputs, truth)):
            return candidate
    if state is not None:
        generator.set_state(state)
    for tensor, kept in lost:
        tensor.copy_(kept)
    again = (
        partial(_assign_one, outputs[0], call.function, args, kwargs)
        if len(outputs) == 1
        else partial(_assign, outputs, call.function, args, kwargs)
    )
    again()
    return again


def _candidates(
    call: Call, args: Any, kwargs: dict[str, Any], outputs: list[Tensor]
) -> Iterator[Callable[[], Any]]:
    out = outputs[0] if len(outputs) == 1 else tuple(outputs)
    builtins = [f for f in (getattr(home, call.name, None) for home in _BUILTINS) if f is not None]
    if call.name in _ROUNDED and len(args) == 2 and _is_number_for(args[0], args[1]):
        # It is turned into a tensor in every call, which costs more than the operation.
        number = torch.tensor(args[1], dtype=args[0].dtype)
        yield from (partial(f, args[0], number, **kwargs, out=out) for f in builtins)
    yield from (partial(f, *args, **kwargs, out=out) for f in builtins)
    names = [argument.name for argument in call.function._schema.arguments]
    packet = call.function.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        arguments = overload._schema.arguments
        outs = [a.name for a in arguments if a.is_out]
        if len(outs) == len(outputs) and [a.name for a in arguments if not a.is_out] == names:
            yield partial(overload, *args, **kwargs, **dict(zip(outs, outputs)))


def _is_number_for(tensor: Tensor, value: Any) -> bool:
    return isinstance(value, int | float) and (tensor.is_floating_point() or type(value) is int)


def _assign_one(output: Tensor, function: Any, args: Any, kwargs: dict[str, Any]) -> None:
    result = function(*args, **kwargs)  # looking for tensors in it takes as long as a small product
    output.copy_(result if isinstance(result, Tensor) else result[0])


def _assign(outputs: list[Tensor], function: Any, args: Any, kwargs: dict[str, Any]) -> None:
    for output, result in zip(outputs, tensors_in(function(*args, **kwargs))):
        output.copy_(result)


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors are of one shape and type and agree in every bit."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    first, second = (t.detach().flatten().clone().view(torch.uint8) for t in (one, two))
    return torch.equal(first, second)
