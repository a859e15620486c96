"""Runs functions of tensors from recordings, as far as they allow it, and checks that it may."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from operator import attrgetter
from time import perf_counter
from typing import Any, TypeVar

import torch
from coach.core.assembly import Assemble, take_apart
from coach.core.recording import Recording, same_bits
from coach.core.tape import NotRecordableError
from torch import Tensor, nn

T = TypeVar("T")

#: What a recording may hold at most. Functions that work on more spend their time in arithmetic,
#: and would gain little from it.
MOST_BYTES = 8 * 2**20
#: Recordings of one recorder. Shapes that go on changing are better not recorded.
MOST_RECORDINGS = 16
_MOST_SHAPES = 256  # that are remembered
# Replays after which it is clear whether they pay, and the share of a function's time that does.
_JUDGED_AT, _WORTHWHILE = 16, 0.95
_ALIGNMENT = 64  # of all memory that comes from torch
_form = attrgetter("shape", "dtype")


def recorders_in(module: nn.Module) -> list[Recorder]:
    """The recorders of a module and of those within it."""
    found = (getattr(inner, "recorder", None) for inner in module.modules())
    return [recorder for recorder in found if isinstance(recorder, Recorder)]


@dataclass
class _Known:
    """A recorded function with inputs of certain shapes."""

    recording: Recording
    assemble: Assemble
    uses: int = 0
    replay_seconds: float = inf  # the fastest seen
    function_seconds: float = inf


class Recorder:
    """Calls functions, from their third call on by recordings.

    The 1st, 2nd, 4th, 8th ... replay is compared with the function itself, bit by bit. A function
    whose results differ depends on something that a recording does not know of; it is run as it is
    from then on, and so is one that cannot be recorded, or that is not slower than its recording.

    Copies of a recorder begin with nothing recorded.

    Args:
        enabled: False runs every function as it is.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        #: Why functions are run as they are, by name.
        self.refused: dict[str, str] = {}
        self._known: dict[Any, _Known | None] = {}
        self._pool: list[torch.UntypedStorage] = []  # recordings run one at a time

    def __call__(
        self,
        name: str,
        function: Callable[[Sequence[Tensor]], T],
        inputs: Sequence[Tensor],
        writes: Sequence[Tensor] = (),
    ) -> T:
        """What ``function`` makes of ``inputs``.

        Args:
            name: of the function; two functions must not share it.
            function: depends on its inputs, on generators and on the contents of tensors alone.
            inputs: on CPU.
            writes: what it may write beside the results.
        """
        if not self.enabled or name in self.refused:
            return function(_aligned(inputs))
        key = (name, *map(_form, inputs))
        known = self._known.get(key)
        if known is None and key not in self._known:  # shapes that come once are not worth it
            if len(self._known) >= _MOST_SHAPES:
                self.refused[name] = f"its inputs come in more than {_MOST_SHAPES} shapes"
            self._known[key] = None
            return function(_aligned(inputs))
        if known is None or not known.recording.fits():
            return self._record(key, name, function, inputs, writes)
        known.uses += 1
        if known.uses & (known.uses - 1):
            made: T = known.assemble(known.recording(inputs))
            return made
        return self._check(known, name, function, inputs, writes)

    @property
    def recordings(self) -> list[tuple[str, Recording]]:
        """What has been recorded so far, by name of the function."""
        return [(key[0], known.recording) for key, known in self._known.items() if known]

    def __reduce__(self) -> tuple[type[Recorder], tuple[bool]]:
        return Recorder, (self.enabled,)

    def _record(
        self,
        key: Any,
        name: str,
        function: Callable[[Sequence[Tensor]], T],
        inputs: Sequence[Tensor],
        writes: Sequence[Tensor],
    ) -> T:
        if sum(known is not None for known in self._known.values()) >= MOST_RECORDINGS:
            self.refused[name] = f"its inputs had {MOST_RECORDINGS} different shapes"
            return function(_aligned(inputs))
        assemble: Assemble = list

        def taken_apart() -> list[Tensor]:
            nonlocal assemble
            try:
                tensors, assemble = take_apart(function(private))
            except TypeError as error:
                raise NotRecordableError(f"of what it returns: {error}") from error
            return tensors

        grad = torch.is_grad_enabled()
        recording: Recording | None = None
        # In inference mode operations are not broken down, and its tensors cannot leave it.
        with torch.inference_mode(False), torch.set_grad_enabled(grad):
            private = [tensor.clone() for tensor in inputs]
            try:
                recording = Recording(taken_apart, private, writes, MOST_BYTES, self._pool)
            except NotRecordableError as error:
                self.refused[name] = str(error)
        if recording is None:  # out here, since errors keep what was made alive
            return function(_aligned(inputs))
        results = recording.results()
        self._known[key] = known = _Known(recording, assemble)
        made: T = known.assemble(results)
        return made

    def _check(
        self,
        known: _Known,
        name: str,
        function: Callable[[Sequence[Tensor]], T],
        inputs: Sequence[Tensor],
        writes: Sequence[Tensor],
    ) -> T:
        """Run both; what the function itself gives counts."""
        before = [(generator, generator.get_state()) for generator in known.recording.generators]
        begin = perf_counter()
        replayed = known.recording(inputs)
        known.replay_seconds = min(known.replay_seconds, perf_counter() - begin)
        written = [tensor.clone() for tensor in writes]
        for generator, state in before:
            generator.set_state(state)
        begin = perf_counter()
        result = function(_aligned(inputs))
        known.function_seconds = min(known.function_seconds, perf_counter() - begin)
        if known.uses >= _JUDGED_AT and known.replay_seconds > _WORTHWHILE * known.function_seconds:
            self.refused[name] = "that would not make it faster"
        truth, _ = take_apart(result)
        replayed, truth = [*replayed, *written], [*truth, *writes]
        if len(truth) != len(replayed) or not all(map(same_bits, replayed, truth)):
            self.refused[name] = "it depends on more than its inputs and tensors that stay in place"
            warnings.warn(
                f"{name} gave another result than its recording, because {self.refused[name]}: "
                "on Python numbers that change, for example. It is run unrecorded from now on; "
                "set run.record to false so that it is so from the start.",
                stacklevel=2,
            )
        return result


def _aligned(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers where a recording would have them.

    Kernels may round differently on memory that starts elsewhere.
    """
    return [
        t.clone() if t.is_cpu and t.is_floating_point() and t.data_ptr() % _ALIGNMENT else t
        for t in inputs
    ]
