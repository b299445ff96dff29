"""Files that are either whole or absent: everything sepml writes goes through here."""

import csv
import errno
import json
import os
import tempfile
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
    temporary = None
    if not target.parent.is_dir() and (blocking := _not_a_folder(target)):
        raise SepmlError(f"{target}: cannot be written, as {blocking} is a file, expected a folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        if error.errno in _FULL:
            raise SepmlError(f"{target}: no space left on the disk; free some and run the same command again") from error
        # Writing to an open file gives no name; the temporary one's is absolute.
        if error.filename is None or Path(error.filename).absolute().parent in target.absolute().parents:
            raise SepmlError(f"{target}: cannot be written: {error.strerror}") from error
        raise
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


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


def _not_a_folder(target: Path) -> Path | None:
    return next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
