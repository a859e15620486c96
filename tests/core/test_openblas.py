"""What is known of NumPy's BLAS, and asked of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from coach.core import openblas
from coach.core.openblas import Batch, find_batch, is_wide

BATCH = find_batch()


@pytest.mark.skipif(BATCH is None, reason="NumPy's library has no such function")
@pytest.mark.parametrize(
    ("rows", "inputs", "columns", "members"), [(100, 100, 100, 2), (200, 100, 100, None)]
)
def test_what_the_library_takes_for_small_is_never_given_to_it(
    rows: int, inputs: int, columns: int, members: int | None
) -> None:
    several = () if members is None else (members,)
    sides = (torch.randn(*several, rows, inputs), torch.randn(*several, inputs, columns))
    out = torch.empty(*several, rows, columns)
    assert BATCH is not None
    assert BATCH(*(t.numpy() for t in (*sides, out)), 2) is None


def test_libraries_without_the_function() -> None:
    with pytest.raises(AttributeError, match="cblas_sgemm_batch"):
        Batch(SimpleNamespace(dynlib=SimpleNamespace()))


@pytest.mark.parametrize(
    ("kernels", "wide"),
    [
        (["SkylakeX"], True),
        (["Haswell"], False),  # nobody told it before it was loaded
        (["Haswell", "SkylakeX"], True),
        ([], False),  # NumPy with another library
    ],
)
def test_what_it_makes_use_of(
    kernels: list[str], wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = [SimpleNamespace(architecture=name) for name in kernels]
    monkeypatch.setattr(openblas, "LIBRARIES", libraries)
    assert is_wide() is wide


def test_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(openblas, "LIBRARIES", [SimpleNamespace(set_num_threads=counts.append)] * 2)
    openblas.use_threads(3)
    assert counts == [3, 3]
