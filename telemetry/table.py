"""A CSV file that keeps growing, gains columns when needed, and can be cut back exactly."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import FileIO
from pathlib import Path


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
        self._file: FileIO | None = None
        if path.exists() and path.stat().st_size:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                self.columns = next(reader)
                self.rows = sum(1 for _ in reader)

    def add(self, row: Mapping[str, float | int | None]) -> None:
        """Append a row; absent values are left empty."""
        new = [name for name in row if name not in self.columns]
        if new:
            self._rewrite([*self.columns, *new], self.rows)
        values = map(row.get, self.columns)
        # Numbers need no quotes, and csv would take twice as long.
        text = ",".join(["" if value is None else repr(value) for value in values]) + "\n"
        if self._file is None:
            self._file = FileIO(self.path, "a")  # no buffer that may have to be written later
        left = memoryview(text.encode())
        while left:
            left = left[self._file.write(left) :]
        self.rows += 1

    def cut(self, columns: list[str], rows: int) -> None:
        """Drop what was written after a checkpoint: keep these columns and so many rows."""
        if columns or self.columns:
            self._rewrite(columns, rows)

    def close(self) -> None:
        """Close the file; a row that is added later opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self, columns: list[str], rows: int) -> None:
        self.close()
        kept: list[dict[str, str]] = []
        if self.columns:
            with self.path.open(newline="", encoding="utf-8") as file:
                kept = [row for _, row in zip(range(rows), csv.DictReader(file))]
        fresh = self.path.with_suffix(".tmp")
        with fresh.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, columns, restval="", extrasaction="ignore", lineterminator="\n"
            )
            if columns:
                writer.writeheader()
            writer.writerows(kept)
        fresh.replace(self.path)
        self.columns, self.rows = list(columns), len(kept)
