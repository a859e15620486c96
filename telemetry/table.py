"""A CSV file that keeps growing, gains columns when needed, and can be cut back exactly."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from coach.core.damaged import set_aside

_BLOCK = 16  # rows that share a checksum


class Table:
    """Rows by column name. Numbers are written so that they read back to the same bits.

    A new column means that the file is written anew; rows are flushed as they come. The file stays
    open between them, which is half of what a row would cost.

    Args:
        path: the CSV file; what is in it is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.rows = 0
        #: A checksum of every 16 rows, the last one of those that are left over.
        self.checksums: list[int] = []
        self._file: FileIO | None = None
        header, *rows = self._lines() or [""]
        if header:
            self.columns = next(csv.reader([header]))
            for row in rows:
                self._note(row)

    def add(self, row: Mapping[str, float | int | None]) -> None:
        """Append a row; absent values are left empty."""
        new = [name for name in row if name not in self.columns]
        if new:
            self._write([*self.columns, *new], self._lines()[1:])
        values = map(row.get, self.columns)
        # Numbers need no quotes, and csv would take twice as long.
        line = ",".join(["" if value is None else repr(value) for value in values])
        if self._file is None:
            self._file = FileIO(self.path, "a")  # no buffer that may have to be written later
        left = memoryview(f"{line}\n".encode())
        while left:
            left = left[self._file.write(left) :]
        self._note(line)

    def extent(self) -> list[Any]:
        """What `cut` needs to come back to where the table is now."""
        return [list(self.columns), self.rows, list(self.checksums)]

    def cut(
        self,
        columns: list[str],
        rows: int,
        checksums: Sequence[int] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Drop what was written after a checkpoint: keep these columns and so many rows.

        Rows whose checksum does not match are dropped as well, and the damaged file is kept under
        another name.

        Args:
            columns: at the time of the checkpoint.
            rows: at that time.
            checksums: at that time; ``None`` believes what is there.
            warn: told of damage.
        """
        if not columns and not self.columns:
            return
        lines = self._lines()[1 : rows + 1]
        kept = lines if checksums is None else _whole(lines, rows, checksums)
        if len(kept) < rows:
            self.close()
            aside = f"; the damaged file is now {set_aside(self.path)}" if self._there() else ""
            if warn is not None:
                warn(
                    f"{self.path} is damaged or incomplete: {rows - len(kept):,} of {rows:,} rows "
                    f"before the checkpoint are lost{aside}."
                )
        self._write(columns, kept)
        self.rows, self.checksums = 0, []
        for line in kept:
            self._note(line)

    def close(self) -> None:
        """Close the file; a row that is added later opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lines(self) -> list[str]:
        """The header and the rows; what is no text is replaced, and never equals what was there."""
        if not self.path.is_file():
            return []
        text = self.path.read_bytes().decode(errors="replace")
        return text.removesuffix("\n").split("\n")

    def _there(self) -> bool:
        return self.path.exists() or self.path.is_symlink()

    def _note(self, line: str) -> None:
        if self.rows % _BLOCK == 0:
            self.checksums.append(0)
        self.checksums[-1] = _checksum(line, self.checksums[-1])
        self.rows += 1

    def _write(self, columns: list[str], rows: Sequence[str]) -> None:
        """Write the file anew; rows get or lose empty values at their end."""
        self.close()
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(columns)
        lines = [header.getvalue()] if columns else []
        for row in rows:
            values = row.split(",")[: len(columns)]
            lines.append(",".join(values + [""] * (len(columns) - len(values))) + "\n")
        fresh = self.path.with_name(f"{self.path.name}.tmp")
        fresh.write_text("".join(lines), encoding="utf-8", newline="\n")
        fresh.replace(self.path)
        self.columns = list(columns)


def _whole(lines: Sequence[str], rows: int, checksums: Sequence[int]) -> list[str]:
    """The rows whose checksum matches."""
    kept: list[str] = []
    for number, expected in enumerate(checksums):
        block = lines[number * _BLOCK : min((number + 1) * _BLOCK, rows)]
        found = 0
        for line in block:
            found = _checksum(line, found)
        if found == expected:
            kept += block
    return kept


def _checksum(line: str, before: int) -> int:
    """Of a row and those before it; empty values at the end come and go with later columns."""
    return zlib.crc32(f"{line.rstrip(',')}\n".encode(), before)
