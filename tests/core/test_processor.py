"""What is known of the processor."""

from __future__ import annotations

import pytest
import torch
from coach.core.processor import onemkl_falls_behind

AMD = {"cpu_name": "AMD EPYC"}


@pytest.mark.parametrize(
    ("capability", "about", "behind"),
    [
        ("AVX512", AMD, True),
        ("AVX2", AMD, False),
        ("AVX512", {"cpu_name": "Intel Xeon"}, False),
        ("AVX512", {}, False),
    ],
)
def test_onemkl_falls_behind_where_it_does_not_know_the_processor(
    capability: str, about: dict[str, str], behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: about, raising=False)
    assert onemkl_falls_behind() is behind
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not onemkl_falls_behind()
