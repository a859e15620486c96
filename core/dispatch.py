"""Watching the operations that torch carries out, those of autograd too."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context; subclasses say what is done about each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # whoever compiles does not watch; the import alone takes more than a second


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
        if packet.__name__ == "_linear_pointwise":  # oneDNN's, which torch does not count
            inputs, weight = args[:2]
            self.operations += 2 * inputs.numel() * len(weight)
        elif formula is not None:
            self.operations += formula(*args, **kwargs, out_val=result)
        return result
