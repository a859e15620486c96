"""Tables that grow by rows and columns, and are cut back exactly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from coach.telemetry.table import Table


def test_rows_are_there_as_they_come(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv")
    table.add({"steps": 1, "value": 0.1})
    assert table.path.read_text() == "steps,value\n1,0.1\n"
    table.add({"steps": 2, "value": None})
    table.add({"steps": 3, "other": 1e-300})
    assert table.path.read_text() == "steps,value,other\n1,0.1,\n2,,\n3,,1e-300\n"
    table.close()
    table.add({"other": 2})
    assert table.path.read_text().endswith("3,,1e-300\n,,2\n")
    assert table.rows == 4


def test_cut_back_it_is_what_it_was(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv")
    table.add({"steps": 1})
    before, columns, rows = table.path.read_bytes(), list(table.columns), table.rows
    table.add({"steps": 2, "late": 3})
    table.cut(columns, rows)
    assert table.path.read_bytes() == before
    again = Table(table.path)
    again.add({"steps": 2})
    assert (again.columns, again.rows) == (["steps"], 2)
    assert table.path.read_text() == "steps\n1\n2\n"


def test_what_was_never_written_stays_absent(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv")
    table.cut([], 0)
    table.close()
    assert not table.path.exists()


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "a bit in the first block": (lambda data: flip(data, 40), 34),
    "a bit in the last row": (lambda data: flip(data, len(data) - 3), 48),
    "a bit in the header": (lambda data: flip(data, 2), 50),
    "the last line is cut": (lambda data: data[:-4], 48),
    "half of it is gone": (lambda data: data[: len(data) // 2], 16),
    "binary": (lambda data: bytes(range(256)) * 4, 0),
    "empty": (lambda data: b"", 0),
}


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_rows_are_dropped_and_the_file_kept_aside(how: str, tmp_path: Path) -> None:
    damage, left = DAMAGE[how]
    table = Table(tmp_path / "table.csv")
    for number in range(50):
        table.add({"steps": number, "value": None if number == 49 else number / 7})
    extent, whole = table.extent(), table.path.read_bytes()
    table.add({"steps": 50, "late": 1.5})  # after the checkpoint, with a new column
    table.close()
    table.path.write_bytes(damaged := damage(whole))
    said: list[str] = []
    again = Table(table.path)
    again.cut(*extent, said.append)
    rows = again.path.read_text().splitlines()
    assert rows[0] == "steps,value"
    assert len(rows) == left + 1
    assert set(rows) <= set(whole.decode().splitlines())
    kept = list(tmp_path.glob("table.csv.damaged-*"))
    assert len(kept) == len(said) == (left < 50)
    if left < 50:
        assert kept[0].read_bytes() == damaged
        assert f"{table.path} is damaged" in said[0]
        assert kept[0].name in said[0]
        assert f"{50 - left} of 50 rows" in said[0]
    extent = again.extent()
    again.add({"steps": 51})
    again.close()
    once_more = Table(table.path)
    once_more.cut(*extent, said.append)
    assert len(said) == (left < 50), "what is left is whole"


def test_rows_that_later_columns_have_widened_are_whole(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv")
    for number in range(20):
        table.add({"steps": number, "value": None})
    extent, whole = table.extent(), table.path.read_bytes()
    table.add({"steps": 20, "late": 1.5})
    table.close()
    said: list[str] = []
    again = Table(table.path)
    again.cut(*extent, said.append)
    assert said == []
    assert again.path.read_bytes() == whole


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv")
    table.add({"steps": 1})
    table.close()
    table.path.unlink()
    said: list[str] = []
    Table(table.path).cut(*table.extent(), said.append)
    assert "incomplete: 1 of 1 rows" in said[0]
    assert table.path.read_text() == "steps\n"


@pytest.mark.skipif(sys.platform != "linux", reason="has no disk that is always full")
def test_a_full_disk_is_reported_once(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv")
    table.add({"steps": 1})
    table.close()
    table.path.unlink()
    table.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        table.add({"steps": 2})
    assert table.rows == 1
    table.close()
