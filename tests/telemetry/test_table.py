"""Tables that grow by rows and columns, and are cut back exactly."""

from __future__ import annotations

import sys
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
