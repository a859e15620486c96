"""Whether objectives are compiled (torch.compile), and what that took."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, TypeVar

import torch
from coach.core.device import compiles
from coach.core.errors import SettingError

F = TypeVar("F", bound=Callable[..., Any])

#: Updates still to come that make compiling worth its 5 to 60 seconds on a GPU, where an update
#: then takes about a millisecond less.
LEAST_UPDATES = 50_000
_SEEN = 200  # updates after which one knows how many will come


class Compiling:
    """Compiles objectives: always, never, or ("auto") on a GPU and if enough updates will follow.

    On CPU compiled code was no faster than recordings are (docs/performance.md), so there "auto" is
    never. On a GPU CUDA graphs are used as well; that has not been run so far.

    Used as a context around every update; the first one with compiled objectives is timed.

    Args:
        wanted: True, False or "auto".
        device: of the learner.
        steps: environment steps of the whole run.
        say: told how long it took.
    """

    def __init__(
        self,
        wanted: bool | Literal["auto"] = False,
        device: torch.device | None = None,
        steps: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        on_gpu = device is not None and compiles(device)
        #: Whether objectives are compiled from now on.
        self.on = wanted is True
        self._undecided = wanted == "auto" and on_gpu
        self._steps, self._say = steps, say
        self._mode = "reduce-overhead" if on_gpu else None
        self._compiled: dict[str, Callable[..., Any]] = {}
        self._told = False

    def decide(self, updates: int, env_steps: int) -> None:
        """Think again, given the updates and environment steps so far."""
        if self._undecided and updates >= _SEEN:
            self._undecided = False
            to_come = (self._steps - env_steps) * updates / max(env_steps, 1)
            self.on = to_come >= LEAST_UPDATES

    def __call__(self, name: str, objective: F) -> F:
        """The objective, compiled or not.

        Args:
            name: of the objective.
            objective: a function of a batch.
        """
        if not self.on:
            return objective
        if name not in self._compiled:
            self._compiled[name] = torch.compile(objective, dynamic=False, mode=self._mode)
        return self._compiled[name]  # type: ignore[return-value]

    def keeps(self, tensor: torch.Tensor) -> torch.Tensor:
        """A result that outlives the update; CUDA graphs write to the same memory again."""
        return tensor.clone() if self.on and self._mode else tensor

    def __enter__(self) -> None:
        self._begin = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.on or self._told:
            return
        if error is not None:
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                return
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = " ".join(lines[:2])  # torch explains itself at length below
            raise SettingError(
                "run.compile",
                f"torch.compile failed: {reason}",
                "It needs a C++ compiler on CPU and Triton on a GPU; --set run.compile=false does "
                "without.",
            ) from error
        self._told = True
        seconds = perf_counter() - self._begin
        self._say(f"Compiling took {seconds:.1f} s (run.compile).")
