"""A pretended accelerator: tensors that hold numbers on the CPU and say that they are elsewhere.

torch lets a backend be written in Python (its device type "PrivateUse1"). This one, "pretended:0",
computes on the CPU, but as strictly as CUDA:

- mixing tensors of both devices raises, and so do ``.numpy()`` and a generator of the other device;
- states of generators have another form than those of the CPU;
- what Python has to wait for is counted, and so is every copy between the devices;
- with ``asynchronous``, copies that do not block are still under way when they return. Memory of
  the CPU that one of them reads must not change, and memory that one of them fills holds nothing of
  use, until Python has waited.

It cannot show what only real hardware does: streams, kernels that are not deterministic, memory that
runs out, NCCL, CUDA graphs, speed.

The interface that it uses is private to torch, so `UNAVAILABLE` says why it cannot be used with
another version. It has to be registered before the first backward pass of a process, hence when this
file is imported.
"""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from coach.core import device as core_device
from torch import Tensor
from torch.overrides import TorchFunctionMode

NAME = "pretended"
_ROOT = Path(core_device.__file__).parents[1]
_EXTRA_STATE = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8], dtype=torch.uint8)
_GARBAGE = 0xA5
#: Files that carry out copies for others, who are to be named.
_CARRIERS = ("device.py", "batch.py")
aten = torch.ops.aten

#: Operators whose result has as many rows as the numbers say, which Python therefore waits for.
_SIZED_BY_CONTENT = {
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
}
_INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
_COPIES = {aten.copy_.default, aten._to_copy.default}


class DeviceError(RuntimeError):
    """What a real accelerator would have refused."""


@dataclass
class Traffic:
    """What happened between Python and the device.

    Args:
        waits: how often Python waited for the device, by the line of Coach that did.
        uploads: copies to the device, likewise.
        downloads: copies to the CPU, likewise.
        kernels: operators run on the device.
    """

    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    downloads: Counter[str] = field(default_factory=Counter)
    kernels: int = 0

    def clear(self) -> None:
        """Count from 0 again."""
        for counter in (self.waits, self.uploads, self.downloads):
            counter.clear()
        self.kernels = 0


class _Session:
    """What the device remembers while it is in use."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.lock = threading.RLock()
        self.asynchronous = self.without_double = False
        #: Page-locked memory by address; kept, so that an address stays that of one tensor.
        self.pinned: dict[int, Tensor] = {}
        #: Copies under way: what they read, or where to and what, with the line that began them.
        self.reading: list[tuple[Tensor, Tensor, str]] = []
        self.filling: list[tuple[Tensor, Tensor]] = []

    def note(self, counter: Counter[str], what: str = "") -> None:
        """Count something under the line of Coach that led to it."""
        with self.lock:
            counter[f"{_line_of_coach()}{' ' if what else ''}{what}"] += 1

    def wait(self, what: str) -> None:
        """Python waits until the device has done all of its work."""
        self.note(self.traffic.waits, what)
        self.finish()

    def finish(self) -> None:
        """Let all copies arrive.

        Raises:
            DeviceError: memory was written to while a copy was still reading it.
        """
        with self.lock:
            reading, self.reading = self.reading, []
            filling, self.filling = self.filling, []
        for target, value in filling:
            target.copy_(value)
        for source, before, line in reading:
            if not torch.equal(source.view(torch.uint8), before.view(torch.uint8)):
                raise DeviceError(f"memory changed while a copy was reading it, begun at {line}")


_session = _Session()
_real_generator = torch.Generator
_real_empty = torch.empty


class Pretended(Tensor):
    """A tensor of the device. ``held`` are its numbers, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        if _session.without_double and held.dtype == torch.float64:
            raise TypeError("Cannot convert a tensor to float64, which the device does not have")
        made: Pretended = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.held})"

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, Pretended)
        self.held = value.held

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu()")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        with torch.inference_mode(False):
            copied: Tensor = Pretended(self.held.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class PretendedGenerator(torch._C.Generator):
    """A random stream of the device; it draws what one of the CPU would."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(NAME, 0)

    def get_state(self) -> Tensor:
        return torch.cat([super().get_state(), _EXTRA_STATE])

    def set_state(self, state: Tensor) -> PretendedGenerator:  # type: ignore[override]
        if state.device.type != "cpu" or not torch.equal(state[-8:], _EXTRA_STATE):
            raise DeviceError("RNG state is wrong size")
        super().set_state(state[:-8].clone())
        return self


class _Event:
    """An event of the device; only those that Coach records and waits for."""

    def record(self, stream: str) -> None:
        """Note the place in the queue."""
        assert stream == f"stream of {NAME}:0"

    def synchronize(self) -> None:
        """Wait for it."""
        _session.wait("event")


class _Checks(TorchFunctionMode):
    """Sees calls before torch decides where they run: generators must be those of the device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        stream = kwargs.get("generator")
        if stream is not None:
            device = kwargs.get("device")
            if device is None:
                device = args[0].device if args and isinstance(args[0], Tensor) else "cpu"
            if (torch.device(device).type == NAME) != isinstance(stream, PretendedGenerator):
                raise DeviceError(
                    f"Expected a '{torch.device(device).type}' generator but found "
                    f"'{stream.device.type}', at {_line_of_coach()}"
                )
        return func(*args, **kwargs)


def _generator(device: torch.device | str = "cpu") -> torch.Generator:
    if torch.device(device).type == NAME:
        return PretendedGenerator()
    return _real_generator(device)


def _empty(*size: Any, pin_memory: bool = False, **settings: Any) -> Tensor:
    made = _real_empty(*size, **settings)
    if pin_memory:
        assert made.device.type == "cpu"
        _session.pinned[made.untyped_storage().data_ptr()] = made
    return made


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operator with tensors of the device, or one that makes some."""
    if torch.is_inference_mode_enabled():  # where torch does not take operators apart by itself
        parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
    # Wrappers that are made in inference mode could not be used outside of it.
    with torch.inference_mode(False), torch.no_grad():
        target = kwargs.get("device")
        target = None if target is None else torch.device(target).type
        tensors = _tensors((args, kwargs))
        held = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
        if not held and target != NAME:
            raise DeviceError(f"{func} was sent to the device without any of its tensors")
        if func in _COPIES:
            return _copy(func, args, kwargs, target)
        _refuse_mixtures(func, args, tensors)
        if func is aten._local_scalar_dense.default:
            _session.wait("a number")
        if func in _SIZED_BY_CONTENT:
            _session.wait(str(func))
        _session.traffic.kernels += 1
        return _held_result(func, args, kwargs, held)


def _held_result(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], held: list[Pretended]
) -> Any:
    """Run it on the numbers, and wrap what comes out; what was written in place stays itself."""
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    args, kwargs = _mapped(_unwrapped, args), _mapped(_unwrapped, kwargs)
    wrapper_of = {id(tensor.held): tensor for tensor in held}

    def wrapped(result: Tensor) -> Tensor:
        known = wrapper_of.get(id(result))
        return Pretended(result) if known is None else known

    return _mapped(wrapped, func(*args, **kwargs))


def _mapped(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Arguments or results of an operator with other tensors; torch's own way is much slower."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, list | tuple):
        return type(tree)([_mapped(change, item) for item in tree])
    if isinstance(tree, dict):
        return {name: _mapped(change, item) for name, item in tree.items()}
    return tree


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors among arguments of an operator."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return [tensor for item in tree for tensor in _tensors(item)]
    return []


def _unwrapped(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, Pretended) else tensor


def _refuse_mixtures(func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise where CUDA would: only numbers without dimensions, and indices, may be on the CPU."""
    others = [t for t in tensors if not isinstance(t, Pretended) and t.dim() > 0]
    if func in _INDEXING:
        if not isinstance(args[0], Pretended):
            raise DeviceError(f"indices should be on the CPU, at {_line_of_coach()}")
        for index in args[1]:
            if index is None:
                continue
            if index.dtype in (torch.bool, torch.uint8):
                _session.wait("indexing by a mask")
            elif not isinstance(index, Pretended):
                _session.note(_session.traffic.uploads, "index")
                _session.wait("index of the CPU")
        others = [t for t in others if not any(t is index for index in args[1])]
    if others:
        raise DeviceError(
            f"Expected all tensors to be on the same device, but found {NAME}:0 and cpu "
            f"({func}), at {_line_of_coach()}"
        )


def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: str | None) -> Any:
    """`Tensor.to` and `Tensor.copy_`, which alone may cross from device to device."""
    if func is aten.copy_.default:
        into, source = args[:2]
        beside = bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
    else:
        source, beside = args[0], bool(kwargs.get("non_blocking", False))
        there = target == NAME or (target is None and isinstance(source, Pretended))
        settings = {k: v for k, v in kwargs.items() if k in ("dtype", "memory_format")}
        made = aten._to_copy.default(_unwrapped(source), **settings)
        into = Pretended(made) if there else made
    up = isinstance(into, Pretended) and not isinstance(source, Pretended)
    down = isinstance(source, Pretended) and not isinstance(into, Pretended)
    host = source if up else into
    pinned = (up or down) and host.untyped_storage().data_ptr() in _session.pinned
    under_way = beside and _session.asynchronous and pinned
    _unwrapped(into).copy_(_unwrapped(source))
    if not up and not down:
        _session.traffic.kernels += 1
        return into
    _session.note(_session.traffic.uploads if up else _session.traffic.downloads)
    if under_way and up:
        _session.reading.append((source, source.clone(), _line_of_coach()))
    elif under_way:
        _session.filling.append((into, into.clone()))
        into.reshape(-1).view(torch.uint8).fill_(_GARBAGE)
    elif not (beside and up and _session.asynchronous):
        # Of the copies that return at once, only those to the device let Python go on.
        _session.wait("blocking copy")
    return into


def _line_of_coach() -> str:
    """The line of Coach's own code that is being run."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        name = _name_in_coach(frame.f_code.co_filename)
        if name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"


@cache
def _name_in_coach(file: str) -> str:
    """A file of Coach's own code that does not only carry out copies; empty for others."""
    path = Path(file)
    ours = _ROOT in path.parents and ".venv" not in path.parts
    if not ours or path.name in _CARRIERS or _ROOT / "tests" in path.parents:
        return ""
    return str(path.relative_to(_ROOT))


def _register() -> str:
    """Make the device known to torch; returns why that is not possible, or nothing."""
    try:
        from torch.utils.backend_registration import (
            _setup_privateuseone_for_python_backend,
        )

        _setup_privateuseone_for_python_backend(NAME)
        library = torch.library.Library("_", "IMPL")
        library.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
        _libraries.append(library)  # its kernels go when it does
        made = torch.zeros(2, device=NAME) + 1
        assert isinstance(made, Pretended)
    except Exception as error:  # private interfaces fail in any way
        return f"torch {torch.__version__} has another interface for such devices: {error!r}"
    return ""


_libraries: list[Any] = []
#: Why the device cannot be used with this version of torch; empty if it can.
UNAVAILABLE = _register()


@contextmanager
def pretending(asynchronous: bool = True, without_double: bool = False) -> Iterator[Traffic]:
    """Within it the device is there, also for threads that begin within it.

    Args:
        asynchronous: it copies from and to page-locked memory while Python goes on, like CUDA;
            otherwise every copy waits.
        without_double: it has no numbers of 64 bits, like MPS.

    Yields:
        What is counted.
    """
    global _session
    _session = _Session()
    _session.asynchronous, _session.without_double = asynchronous, without_double
    run_thread = threading.Thread.run

    def run_with_checks(thread: threading.Thread) -> None:
        with _Checks():
            run_thread(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", _generator)
        patch.setattr(torch, "empty", _empty)
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
        patch.setattr(threading.Thread, "run", run_with_checks)
        if asynchronous:
            patch.setattr(core_device, "ASYNCHRONOUS", {NAME})
        if without_double:
            patch.setattr(core_device, "WITHOUT_DOUBLE", {NAME})
        with _Checks():
            yield _session.traffic
        _session.finish()


def numbers(tensor: Tensor) -> Tensor:
    """A tensor of either device as one of the CPU; counts for nothing."""
    return tensor.held if isinstance(tensor, Pretended) else tensor
