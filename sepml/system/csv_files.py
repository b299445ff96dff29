"""The reader of CSV: tables in blocks of many rows, or row by row with the names of the columns."""

import csv
import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from sepml.errors import SepmlError, did_you_mean

MOST_LINE_BYTES = 1 << 20
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
    with _opened(path, what) as (file, start), _no_collection():
        line, rest = 1, b""
        while content := file.read(_BLOCK):
            # Up to the last complete line; a last line without an end comes after the loop.
            complete, end, rest = (rest + content).rpartition(b"\n")
            if end:
                block, count = _parse(complete + end, start, line, path)
                yield block
                start, line = start + len(complete) + 1, line + count
            _require_short(rest, line, path, what)
        if rest:
            yield _parse(rest + b"\n", start, line, path)[0]


def read_rows(path: Path, what: str, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table one after the other, as they are read: their line and their fields by column.

    Args:
        what: it should be, and who writes it, for the messages. columns: that it must have; others may stand beside them.

    Raises:
        SepmlError: the file is missing, cannot be read, is not CSV in UTF-8 (a byte order mark at its start is passed
            over), has no header, lacks a column or has one twice, or a row has more or fewer fields than the header.
    """
    path = Path(path)
    with _opened(path, what) as (file, _):
        reader = csv.reader(_lines(file, path, what))
        header = next(reader, [])
        _check_header(header, path, what, columns)
        for row in reader:
            if row and len(row) != len(header):
                raise SepmlError(f"{path}:{reader.line_num}: {len(row)} fields, expected {len(header)} as in the header")
            if row:
                yield reader.line_num, dict(zip(header, row, strict=True))


def _check_header(header: list[str], path: Path, what: str, columns: Sequence[str]) -> None:
    if doubled := [name for name, times in Counter(header).items() if times > 1]:
        raise SepmlError(f"{path}: column '{doubled[0][:80]}' stands twice")
    if missing := [name for name in columns if name not in header]:
        found = ",".join(header)[:200] or "nothing"
        hint = did_you_mean(missing[0], header)
        raise SepmlError(f"{path}: column '{missing[0]}' is missing{hint}; expected a {what}, the header is: {found}")
    if not header:
        raise SepmlError(f"{path}: is empty, expected a {what}")


def _lines(file: IO[bytes], path: Path, what: str) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES + 1), b""), start=1):
        _require_short(line, number, path, what)
        _refuse_nul(line, number, path)
        yield line.decode("utf-8")


def _require_short(line: bytes, number: int, path: Path, what: str) -> None:
    if len(line) > MOST_LINE_BYTES:
        raise SepmlError(f"{path}:{number}: a line of more than {MOST_LINE_BYTES:,} bytes, expected a {what} in CSV form")


def _refuse_nul(lines: bytes, first: int, path: Path) -> None:
    before, nul, _ = lines.partition(b"\0")
    if nul:
        raise SepmlError(f"{path}:{first + before.count(10)}: is not a CSV text file: it holds a NUL byte")


@contextmanager
def _opened(path: Path, what: str) -> Iterator[tuple[IO[bytes], int]]:
    """A table after its byte order mark, and the byte where that is; what goes wrong in reading it, as one line."""
    try:
        with path.open("rb") as file:
            start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
            file.seek(start)
            yield file, start
    except FileNotFoundError as error:
        raise SepmlError(f"{path}: no such {what}") from error
    except OSError as error:
        raise SepmlError(f"{path}: cannot be read: {error.strerror}; expected a {what} in CSV form") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SepmlError(f"{path}: is not a CSV text file: {error}") from error


def split_line(line: bytes) -> list[str]:
    """The fields of one line.

    Raises:
        UnicodeDecodeError, csv.Error: it is none.
    """
    return next(csv.reader([line.decode("utf-8")]), [])


def _parse(content: bytes, start: int, line: int, path: Path) -> tuple[Block, int]:
    """The rows of whole lines, the first of which is line `line` and begins at byte `start`; the number of lines."""
    _refuse_nul(content, line, path)
    text = content.decode("utf-8").split("\n")  # the last item is empty, and ends a quoted field that is still open
    rows = list(csv.reader(text))
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
    if len(rows) != len(text):
        reader = csv.reader(text)
        broken = next(number for number, _ in enumerate(reader) if reader.line_num != number + 1)
        raise SepmlError(f"{path}:{line + broken}: a quoted field goes on in the next line, expected one line a row")
    block = Block(rows[:-1], start + np.concatenate([[0], ends[:-1]]), line + np.arange(len(ends)))
    if not all(block.rows):
        block = block.part([index for index, row in enumerate(block.rows) if row or line + index == 1])
    return block, len(ends)


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
