"""The recorder runs functions from recordings, and notices when it must not."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from coach.core.assembly import take_apart
from coach.core.recorder import MOST_BYTES, MOST_RECORDINGS, Recorder
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class Counted:
    """A function that counts how often it is run."""

    def __init__(self) -> None:
        self.runs = 0
        self.factor = 2.0

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        self.runs += 1
        x = inputs[0]
        for _ in range(20):  # so that there is something to gain
            x = x.unsqueeze(0).add(1).squeeze(0) - 1
        return {"product": x * self.factor}


def test_it_is_run_seldom_and_the_result_is_the_same() -> None:
    recorder, function = Recorder(), Counted()
    for n in range(100):
        x = torch.full((3,), float(n))
        assert torch.equal(recorder("f", function, [x])["product"], x * 2)
    # First sight, recording, and comparisons at uses 1, 2, 4, 8, 16, 32 and 64.
    assert function.runs == 9


def test_every_shape_has_its_own_recording() -> None:
    recorder, function = Recorder(), Counted()
    for _ in range(5):
        for size in (2, 3):
            assert recorder("f", function, [torch.ones(size)])["product"].shape == (size,)
    assert not recorder.refused


def test_shapes_without_end_are_given_up() -> None:
    recorder, function = Recorder(), Counted()
    for size in range(1, MOST_RECORDINGS + 3):
        for _ in range(2):
            recorder("f", function, [torch.ones(size)])
    assert "different shapes" in recorder.refused["f"]
    runs = function.runs
    recorder("f", function, [torch.ones(1)])
    assert function.runs == runs + 1


def test_a_python_number_that_changes_is_noticed() -> None:
    recorder, function = Recorder(), Counted()
    x = torch.ones(2)
    for _ in range(3):
        recorder("f", function, [x])
    function.factor = 5.0
    with pytest.warns(UserWarning, match="f gave another result .* run.record"):
        result = recorder("f", function, [x])
    assert result["product"].tolist() == [5, 5]  # the function's own
    assert "f" in recorder.refused
    function.factor = 6.0
    assert recorder("f", function, [x])["product"].tolist() == [6, 6]


def test_what_it_may_write_is_compared_too() -> None:
    recorder, out = Recorder(), torch.zeros(2)
    factor = [2.0]

    def function(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        out.copy_(inputs[0] * factor[0])
        return {}

    for _ in range(3):
        recorder("f", function, [torch.ones(2)], [out])
    factor[0] = 3.0
    with pytest.warns(UserWarning, match="another result"):
        recorder("f", function, [torch.ones(2)], [out])
    assert out.tolist() == [3, 3]


def test_disabled_it_runs_the_function() -> None:
    recorder, function = Recorder(enabled=False), Counted()
    for _ in range(5):
        recorder("f", function, [torch.ones(2)])
    assert function.runs == 5


def test_copies_begin_anew() -> None:
    recorder, function = Recorder(), Counted()
    for _ in range(5):
        recorder("f", function, [torch.ones(2)])
    assert recorder.recordings
    assert copy.deepcopy(recorder).recordings == []
    recorder.enabled = False
    assert not copy.deepcopy(recorder).enabled


def test_weights_that_move_are_recorded_anew() -> None:
    recorder = Recorder()
    layer = torch.nn.Linear(2, 2)
    x = torch.ones(1, 2)
    with torch.no_grad():
        for _ in range(6):
            recorder("f", lambda t: layer(t[0]), [x])
        layer.weight.data = layer.weight * 2
        assert torch.equal(recorder("f", lambda t: layer(t[0]), [x]), layer(x))


def test_what_it_writes_may_move_too() -> None:
    recorder, out = Recorder(), torch.zeros(2)

    def function(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        out.copy_(tensors[0] * 2)
        return tensors[0] + 1

    for number in range(9):
        if number == 7:  # no replay with a comparison
            out.data = torch.zeros(2)
        recorder("f", function, [torch.full((2,), float(number))], [out])
        assert out.tolist() == [2.0 * number] * 2


def test_inference_mode_makes_no_difference() -> None:
    recorder, layer = Recorder(), torch.nn.Linear(4, 3)
    with torch.inference_mode():
        for _ in range(10):
            x = torch.randn(2, 4)
            assert torch.equal(recorder("f", lambda t: layer(t[0]), [x]), layer(x))
    assert not recorder.refused


def test_values_are_taken_apart_and_put_together() -> None:
    one, two = torch.ones(1), torch.zeros(2)
    value: Any = {"a": [one, (two, "word", None)], "b": SimpleNamespace(inner=one, size=3)}
    tensors, assemble = take_apart(value)
    assert [t.shape[0] for t in tensors] == [1, 2, 1]
    again = assemble([t + 1 for t in tensors])
    assert again["a"][0].tolist() == [2]
    assert again["a"][1][1:] == ("word", None)
    assert again["b"].inner.tolist() == [2]
    assert again["b"].size == 3
    assert list(again) == list(value)
    again["b"].size, again["c"] = 4, one  # nothing is shared with the next one
    other = assemble(tensors)
    assert (other["b"].size, list(other)) == (3, ["a", "b"])


def test_a_value_in_which_tensors_could_hide_is_not_recorded() -> None:
    recorder = Recorder()
    for _ in range(3):
        closure = recorder("f", lambda t: lambda: t[0] + 1, [torch.ones(1)])
        assert closure().tolist() == [2]
    assert "may hide tensors" in recorder.refused["f"]


def test_what_cannot_be_recorded_is_not_kept_alive() -> None:
    made: list[StorageWeakRef] = []
    alive = 0

    def large(inputs: Sequence[Tensor]) -> Tensor:
        nonlocal alive
        alive = sum(not storage.expired() for storage in made)  # those of earlier calls
        tensor = inputs[0] + 1
        made.append(StorageWeakRef(tensor.untyped_storage()))
        return tensor.cumsum(0)

    recorder = Recorder()
    for _ in range(2):
        recorder("f", large, [torch.ones(MOST_BYTES // 2)])
    assert "MiB" in recorder.refused["f"]
    assert len(made) == 3  # as it is, noted, as it is
    assert alive == 0
