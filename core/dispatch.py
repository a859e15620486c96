"""Watching the operations that torch carries out, those of autograd too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils.flop_counter import flop_registry

# Products by oneDNN and by NumPy, and the columns of each by its right side.
_PRODUCTS: dict[str, Callable[[Tensor], int]] = {
    "_linear_pointwise": lambda weight: len(weight),
    "product": lambda right: right.shape[-1],
}


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context; subclasses say what is done about each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # whoever compiles does not watch; the import alone takes more than a second


def watched() -> bool:
    """Whether somebody, not necessarily of this module, watches in this thread."""
    return _get_current_dispatch_mode() is not None


class Work(Watch):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of products and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func.overloadpacket
        formula = flop_registry.get(packet)
        if packet.__name__ in _PRODUCTS:  # which torch does not count
            self.operations += 2 * args[0].numel() * _PRODUCTS[packet.__name__](args[1])
        elif formula is not None:
            self.operations += formula(*args, **kwargs, out_val=result)
        return result
