"""What differs between the CPU and an accelerator, in one place.

An accelerator is any device but the CPU: CUDA, MPS, XPU or another backend of torch. It works
through a queue of kernels while Python goes on. What costs time is waiting for it (a
synchronisation), and every copy between its memory and the CPU's, however small. `upload` and
`fetch` therefore put many tensors into one copy.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

#: Types of device that copy from and to page-locked memory while Python goes on.
ASYNCHRONOUS = {"cuda"}
#: Types of device without numbers of 64 bits.
WITHOUT_DOUBLE = {"mps"}
#: Gradients are averaged through this backend of torch.distributed, by type of device.
COLLECTIVES = {"cpu": "gloo", "cuda": "nccl"}
# Where tensors begin within a packed buffer: a multiple of what kernels load at once.
_ALIGNMENT = 256


def is_accelerator(device: torch.device | str) -> bool:
    """Whether it works beside Python, in memory of its own."""
    return torch.device(device).type != "cpu"


def copies_beside(device: torch.device | str) -> bool:
    """Whether copies between it and page-locked memory run while Python goes on; CUDA only."""
    return torch.device(device).type in ASYNCHRONOUS


def compiles(device: torch.device | str) -> bool:
    """Whether torch.compile pays there, with CUDA graphs; CUDA only."""
    return torch.device(device).type == "cuda"


def widest(device: torch.device | str) -> torch.dtype:
    """The type for sums of many numbers: of 64 bits, where the device has them."""
    return torch.float32 if torch.device(device).type in WITHOUT_DOUBLE else torch.float64


def place(module: M, device: torch.device | str) -> M:
    """Move a module to ``device``; numbers of 64 bits become 32 where it has none (MPS)."""
    if torch.device(device).type in WITHOUT_DOUBLE:
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                if buffer.dtype == torch.float64:
                    setattr(part, name, buffer.float())
    return module.to(device)


def fits(stream: torch.Generator, state: Tensor) -> bool:
    """Whether ``state`` is of the type of device that the stream draws on."""
    return state.shape == stream.get_state().shape


def go_on(stream: torch.Generator, state: Tensor) -> None:
    """Have a random stream go on from ``state``.

    One of another type of device says nothing to it (see `fits`). Then the stream begins anew, from
    a seed that depends on the state alone.
    """
    state = state.cpu()
    if fits(stream, state):
        stream.set_state(state)
    else:
        stream.manual_seed(zlib.crc32(state.numpy().tobytes()))


def upload(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Tensors of the CPU on an accelerator, brought there by one copy.

    They are packed into one buffer of bytes, and come back as views of its copy. On CUDA the buffer
    is page-locked and the copy runs while Python goes on. It needs no event of ours: torch does not
    hand out page-locked memory again before the copies from it have ended.

    Args:
        tensors: those on the device already stay as they are.
        device: where to; to the CPU, nothing is copied.
    """
    if not is_accelerator(device):
        return list(tensors)
    coming = [tensor for tensor in tensors if tensor.device.type == "cpu"]
    if not coming:
        return list(tensors)
    beside = copies_beside(device)
    spans, size = [], 0
    for tensor in coming:
        spans.append(slice(size, size + tensor.numel() * tensor.itemsize))
        size += -(-(tensor.numel() * tensor.itemsize) // _ALIGNMENT) * _ALIGNMENT
    packed = torch.empty(size, dtype=torch.uint8, pin_memory=beside)
    for tensor, span in zip(coming, spans):
        _read(packed[span], tensor).copy_(tensor)
    there = packed.to(device, non_blocking=beside)
    moved = (_read(there[span], tensor) for tensor, span in zip(coming, spans))
    return [next(moved) if tensor.device.type == "cpu" else tensor for tensor in tensors]


def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one device on the CPU; from an accelerator by one copy, which is waited for."""
    if not tensors or not is_accelerator(tensors[0].device):
        return list(tensors)
    if len(tensors) == 1:
        return [tensors[0].cpu()]
    # The widest numbers first, so that each begins where its type may.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].itemsize)
    packed = torch.cat([tensors[i].reshape(-1).view(torch.uint8) for i in order]).cpu()
    found: list[Tensor] = list(tensors)
    begin = 0
    for i in order:
        end = begin + tensors[i].numel() * tensors[i].itemsize
        found[i] = _read(packed[begin:end], tensors[i])
        begin = end
    return found


class Fetching:
    """A tensor on its way to the CPU, for whoever needs it later.

    On CUDA its copy is queued at once. Waiting for it does not wait for kernels queued behind it,
    such as those of the next update; ``tensor.cpu()`` at that time would.

    Args:
        tensor: on any device.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._arrived: torch.cuda.Event | None = None
        if copies_beside(tensor.device):
            self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def result(self) -> Tensor:
        """The tensor on the CPU, as soon as it is there."""
        if self._arrived is None:
            return self._tensor.cpu()
        self._arrived.synchronize()
        return self._tensor


def _read(packed: Tensor, like: Tensor) -> Tensor:
    """Bytes as the tensor that they were."""
    return packed.view(like.dtype).view(like.shape)
