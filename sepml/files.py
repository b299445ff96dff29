"""Files that are either whole or absent: everything sepml writes goes through here."""

import csv
import errno
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its name only when the block ends well.

    The suffix is kept, so that libraries which go by it write the right format. The folder is made when absent.

    Raises:
        SepmlError: the disk is full, or the folder cannot be made or written.
    """
    with _replacing(target) as (handle, temporary):
        os.close(handle)
        yield Path(temporary)


def write_bytes(target: Path, content: bytes | memoryview) -> None:
    """Write a file, whole or not at all, in few calls of the system: data sets are many small files.

    Raises:
        SepmlError: see `atomic_path`.
    """
    with _replacing(target) as (handle, _), open(handle, "wb", buffering=0) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]


@contextmanager
def _replacing(target: Path) -> Iterator[tuple[int, str]]:
    """A new file beside `target`, open for writing, and its path; it takes the target's place at the end."""
    temporary = None
    try:
        handle, temporary = _create_beside(target)
        yield handle, temporary
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        if message := _explained(error, target):
            raise SepmlError(message) from error
        raise
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write JSON with two spaces of indent, whole or not at all; nan and inf are refused as JSON has no such numbers."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(target: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header line, whole or not at all."""
    with atomic_path(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _create_beside(target: Path) -> tuple[int, str]:
    """A new file for a temporary of `target`, open for writing, and its path; the folder is made when absent."""
    folder, name = os.path.split(target)
    stem, suffix = os.path.splitext(name)
    temporary = os.path.join(folder, f".{stem[:40]}.{os.urandom(8).hex()}{suffix}")
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(temporary, how, 0o666), temporary
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        return os.open(temporary, how, 0o666), temporary


def _explained(error: OSError, target: Path) -> str | None:
    """What went wrong in terms of the target; None where it is about something else."""
    if error.errno in _FULL:
        return f"{target}: no space left on the disk; free some and run the same command again"
    if blocking := _not_a_folder(target):
        return f"{target}: cannot be written, as {blocking} is a file, expected a folder"
    # Writing to an open file gives no name; the temporary one's may be absolute.
    if error.filename is None or Path(error.filename).absolute().parent in target.absolute().parents:
        return f"{target}: cannot be written: {error.strerror}"
    return None


def _not_a_folder(target: Path) -> Path | None:
    return next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
