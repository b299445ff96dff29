"""CSV tables larger than memory: read once in blocks when they are opened, row by row afterwards."""

import copy
import csv
import gc
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from sepml.errors import SepmlError

Row = TypeVar("Row")
_BLOCK = 1 << 20
_MOST_DIGITS = 18
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Some rows of a table that follow each other; blank lines are passed over, but for the first.

    Attributes:
        rows: their fields.
        offsets: where their lines begin, bytes, `(len(rows),)` int64.
        lines: their lines, the first of a file is 1, `(len(rows),)` int64.
    """

    rows: list[list[str]]
    offsets: np.ndarray
    lines: np.ndarray

    def part(self, which: slice | list[int]) -> "Block":
        """Some of the rows."""
        rows = self.rows[which] if isinstance(which, slice) else [self.rows[index] for index in which]
        return Block(rows, self.offsets[which], self.lines[which])

    def places(self, key: int, length: int) -> "Places":
        """Where the rows stand, by the columns of their name and of their length, which is a number."""
        lengths = np.fromiter(map(int, map(itemgetter(length), self.rows)), np.int64, len(self.rows))
        hashes = np.fromiter(map(hash, map(itemgetter(key), self.rows)), np.int64, len(self.rows))
        return Places(self.offsets, self.lines, lengths, hashes)


class Places(NamedTuple):
    """Where some rows stand, as in `Block`; their lengths in samples, and hashes of their names; int64 all."""

    offsets: np.ndarray
    lines: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray


def blocks(path: Path, what: str) -> Iterator[Block]:
    """A table from its first line to its last in blocks of about 1 MB; the header is the first row of the first block.

    Args:
        what: it should be, for the messages, such as `manifest`.

    Raises:
        SepmlError: the file is missing, cannot be read or is not CSV in UTF-8, or a field goes on over several lines.
    """
    try:
        with path.open("rb") as file, _no_collection():
            start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
            file.seek(start)
            line, rest = 1, b""
            while content := file.read(_BLOCK):
                # Up to the last line that is whole; a last line without an end comes after the loop.
                content = rest + content
                whole = content.rfind(b"\n") + 1
                rest = content[whole:]
                if whole:
                    block, count = _parse(content[:whole], start, line, path)
                    yield block
                    start, line = start + whole, line + count
            if rest:
                yield _parse(rest + b"\n", start, line, path)[0]
    except FileNotFoundError as error:
        raise SepmlError(f"{path}: no such {what}") from error
    except OSError as error:
        raise SepmlError(f"{path}: cannot be read: {error.strerror}; expected a {what} in CSV form") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SepmlError(f"{path}: is not a CSV text file: {error}") from error


def _parse(content: bytes, start: int, line: int, path: Path) -> tuple[Block, int]:
    """The rows of whole lines, the first of which is line `line` and begins at byte `start`; the number of lines."""
    text = content.decode("utf-8").split("\n")  # the last item is empty, and ends a quoted field that is still open
    rows = list(csv.reader(text))
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
    if len(rows) != len(text):
        reader = csv.reader(text)
        broken = next(number for number, _ in enumerate(reader) if reader.line_num != number + 1)
        raise SepmlError(f"{path}:{line + broken}: a quoted field goes on in the next line, expected one line a row")
    offsets = start + np.concatenate([[0], ends[:-1]])
    lines = line + np.arange(len(ends))
    del rows[-1]
    if not all(rows):
        filled = [index for index, row in enumerate(rows) if row or line + index == 1]
        return Block(rows, offsets, lines).part(filled), len(ends)
    return Block(rows, offsets, lines), len(ends)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Many rows at once set off the search for cycles, which beside PyTorch's objects takes as long as all the rest."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def all_numbers(column: Sequence[str]) -> bool:
    """Whether fields are whole numbers of 0 or more that 64 bits hold.

    >>> all_numbers(["0", "17"]), all_numbers(["1", "-1"]), all_numbers(["1", ""])
    (True, False, False)
    """
    digits = "".join(column)
    return digits.isascii() and digits.isdigit() and all(column) and max(map(len, column)) <= _MOST_DIGITS


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
        self._state = _state(path)
        self._data: mmap.mmap | None = None

    def parse(self, fields: list[str], line: int) -> Row:
        """What the fields of a line stand for."""
        raise NotImplementedError

    def fields(self, index: int) -> list[str]:
        """The fields of a row.

        Raises:
            SepmlError: the file has changed since the table was opened.
        """
        if self._data is None:
            if _state(self.path) != self._state:
                raise SepmlError(f"{self.path}: has changed since it was opened; run the same command again")
            with self.path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # Rows are asked for in any order: what lies around one need not come to memory with it.
            self._data.madvise(mmap.MADV_RANDOM)
        start = int(self.offsets[index])
        end = self._data.find(b"\n", start)
        return next(csv.reader([self._data[start : end if end >= 0 else None].decode("utf-8")]))

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Table[Row]": ...
    def __getitem__(self, index: int | slice) -> "Row | Table[Row]":
        if isinstance(index, slice):
            return self.part(index)
        return self.parse(self.fields(index), int(self.lines[index]))

    def part(self, which: slice | np.ndarray) -> "Table[Row]":
        """Some of the rows, by their indices."""
        part = copy.copy(self)
        part.offsets, part.lines, part.lengths = self.offsets[which], self.lines[which], self.lengths[which]
        return part

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}

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


def _state(path: Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns
