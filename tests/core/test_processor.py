"""What is known of the processor, and what libraries are told about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from coach.core import processor
from coach.core.processor import onemkl_falls_behind, use_wide_vectors

CORE = "OPENBLAS_CORETYPE"
AMD = {"cpu_name": "AMD EPYC"}
WIDE = "fpu avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORE, "")  # so that it is as it was afterwards
    monkeypatch.delenv(CORE)
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")


def described(folder: Path, vendor: str, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(
        f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: A: B\nflags\t\t: {flags}\n\n"
    )
    return path


@pytest.mark.parametrize(
    ("vendor", "flags", "chosen"),
    [
        ("AuthenticAMD", WIDE, "SkylakeX"),
        ("AuthenticAMD", WIDE.replace("avx512bw ", ""), None),
        ("AuthenticAMD", "fpu avx2", None),
        ("GenuineIntel", WIDE, None),
    ],
)
def test_openblas_is_told_what_the_processor_can(
    vendor: str, flags: str, chosen: str | None, tmp_path: Path
) -> None:
    use_wide_vectors(described(tmp_path, vendor, flags))
    assert os.environ.get(CORE) == chosen


def test_a_choice_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORE, "Zen")
    use_wide_vectors(described(tmp_path, "AuthenticAMD", WIDE))
    assert os.environ[CORE] == "Zen"


def test_nothing_is_told_where_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wide_vectors(tmp_path / "missing")
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    use_wide_vectors(described(tmp_path, "AuthenticAMD", WIDE))
    assert CORE not in os.environ


def test_the_command_line_tells_it_before_numpy_is_there(tmp_path: Path) -> None:
    script = (
        "import sys, coach_cli\n"
        "from coach.core import processor\n"
        "def tell():\n"
        "    print('told', 'numpy' in sys.modules)\n"
        "processor.use_wide_vectors = tell\n"
        "sys.argv = ['coach', '--help']\n"
        "coach_cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("told False"), done.stderr


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
