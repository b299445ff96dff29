"""Tables: those larger than memory, found by one pass over the file and read row by row; and tables of text."""

import copy
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np

from sepml.errors import SepmlError
from sepml.system.csv_files import MOST_LINE_BYTES, Places, split_line

Row = TypeVar("Row")
# More than most rows have: one call of the system reads a row.
_PIECE = 2048


class Table(Sequence[Row], Generic[Row]):
    """The sound rows of a table, each parsed when it is asked for; in memory they are some bytes each.

    It may be sent to other processes, which read the file themselves. A slice is a table, too.

    Attributes:
        path: of the file.
        offsets, lines: where the rows stand, as in `Block`.
        lengths: samples of each row's mixture, `(len(self),)` int64.
    """

    def __init__(self, path: Path, places: Places) -> None:
        self.path = path
        self.offsets, self.lines, self.lengths, _ = places
        self._state = _state(os.stat(path))
        self._file: FileIO | None = None

    def parse(self, fields: list[str], line: int) -> Row:
        """What the fields of a line stand for."""
        raise NotImplementedError

    def fields(self, index: int) -> list[str]:
        """The fields of a row.

        Raises:
            SepmlError: the file has changed since the table was opened, or is gone.
        """
        try:
            if self._file is None:
                self._file = FileIO(self.path)
            # By calls of the system: a map of the file would kill the process where somebody makes the file shorter.
            handle = self._file.fileno()
            line = _line_at(handle, int(self.offsets[index]))
            now = _state(os.fstat(handle))
        except OSError as error:
            raise SepmlError(f"{self.path}: cannot be read any more: {error.strerror}; run the same command again") from error
        # After the reading, so that what was read is what was found when the table was opened.
        if now != self._state:
            raise SepmlError(f"{self.path}: has changed since it was opened; run the same command again")
        return split_line(line)

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Row | Self:
        if isinstance(index, slice):
            return self.part(index)
        return self.parse(self.fields(index), int(self.lines[index]))

    def part(self, which: slice | np.ndarray) -> Self:
        """Some of the rows, by their indices."""
        part = copy.copy(self)
        part.offsets, part.lines, part.lengths = self.offsets[which], self.lines[which], self.lengths[which]
        return part

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def repeated(self, hashes: np.ndarray, column: int) -> list[tuple[int, int]]:
        """The rows whose field in `column` stands in an earlier one already, and that earlier one, by their indices.

        Args:
            hashes: of that field of each row, `(len(self),)`; rows are compared only where these are equal.
        """
        order = np.argsort(hashes, kind="stable")
        alike = hashes[order[1:]] == hashes[order[:-1]]
        first: dict[str, int] = {}
        found = []
        for index in np.union1d(order[1:][alike], order[:-1][alike]).tolist():
            earlier = first.setdefault(self.fields(index)[column], index)
            if earlier != index:
                found.append((index, earlier))
        return found


def _state(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns


def _line_at(handle: int, start: int) -> bytes:
    """The line of a file that begins at a byte, without its end."""
    found, size = b"", _PIECE
    while b"\n" not in found and len(found) <= MOST_LINE_BYTES and (piece := os.pread(handle, size, start + len(found))):
        found, size = found + piece, 2 * size
    return found.partition(b"\n")[0]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns are as wide as their widest cell; the first row is the header, the first column leans left."""
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|")
    return "\n".join(lines)


def format_rows(table: Sequence[dict[str, Any]]) -> str:
    """A table as text; fractions with two decimals."""
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in table]
    return markdown([list(table[0]), *rows])
