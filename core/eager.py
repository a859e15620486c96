"""When a module may leave torch's own operators: for NumPy, oneDNN or gradients written by hand.

It may while operations are carried out one by one as they are called. While torch traces, compiles,
exports or transforms them, it records or rewrites operators, and whatever is done outside of them
would be missing from the result.
"""

from __future__ import annotations

import torch
from coach.core.dispatch import Watch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

_PLAIN = (Tensor, nn.Parameter)
# Bound once: every look-up of an attribute takes as long as a call.
_compiles = torch.compiler.is_compiling
_traces, _transforms = torch._C._is_tracing, torch._C._are_functorch_transforms_active
_casts, _calls_modes = torch._C._is_any_autocast_enabled, torch._C._is_torch_function_mode_enabled
_modes = torch._C._len_torch_dispatch_stack


def runs_eagerly() -> bool:
    """Whether operations are carried out as they are called.

    False while torch compiles (`torch.compile`, `torch.export`), traces (`torch.jit.trace`,
    ``make_fx``), transforms (`torch.func`, forward-mode derivatives), chooses other types
    (`torch.autocast`), or hands operations to any mode but a `coach.core.dispatch.Watch`.
    """
    if _compiles():  # first: the compiler reads no further
        return False
    return not (
        _traces()
        or _transforms()
        or _casts()
        or _calls_modes()
        or forward_ad._current_level >= 0
        or (_modes() and not _only_watches())
    )


def may_leave_torch(*tensors: Tensor) -> bool:
    """Whether something else than torch's operators may work on these tensors now.

    They must be of torch's own class (subclasses may have operators of their own), dense, and all
    of one type and device, which torch's operators would check; see also `runs_eagerly`.
    """
    dtype, on_cpu = tensors[0].dtype, tensors[0].is_cpu
    for tensor in tensors:
        if type(tensor) not in _PLAIN or tensor.layout is not torch.strided:
            return False
        if tensor.dtype is not dtype or tensor.is_cpu is not on_cpu:
            return False
    return runs_eagerly()


def _only_watches() -> bool:
    return all(isinstance(mode, Watch) for mode in _get_current_dispatch_mode_stack())
