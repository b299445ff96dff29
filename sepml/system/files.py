"""Atomic writing: to a temporary file, then a rename. Everything sepml writes goes through here.

Symbolic links are followed. What is no regular file, such as a pipe or `/dev/null`, is written through at the end.
"""

import csv
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.system.temporaries import sweep_once, temporary_folder, temporary_name

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/\d+(/task/\d+)?/fd")
_MOST_LINKS = 40


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its name only when the block ends without an error.

    The suffix is kept, so that libraries which go by it write the right format. The folder is made when absent.

    Raises:
        SepmlError: the disk is full, or the folder cannot be made or written.
    """
    try:
        place = _place_of(target)
        if place is None:
            with _writing_through(target) as temporary:
                yield temporary
            return
        with _replacing(place) as (handle, name):
            os.close(handle)
            yield Path(name)
    except OSError as error:
        if explained := _explained(error, target):
            raise explained from error
        raise


def write_bytes(target: Path, content: bytes | memoryview) -> None:
    """Write a file atomically, in few system calls: data sets are many small files.

    Raises:
        SepmlError: see `atomic_path`.
    """
    try:
        place = _place_of(target)
        if place is None:
            _write_all(_open_device(target), content)
            return
        with _replacing(place) as (handle, _):
            _write_all(handle, content)
    except OSError as error:
        if explained := _explained(error, target):
            raise explained from error
        raise


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(target, text.encode())


def write_json(target: Path, value: Any) -> None:
    """Write JSON with two spaces of indent atomically; nan and inf are refused, as JSON has no such numbers."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(target: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header line atomically."""
    with atomic_path(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def _replacing(place: Path) -> Iterator[tuple[int, str]]:
    """A new file beside `place`, open for writing, and its path; it replaces `place` when the block ends without an error."""
    temporary = None
    try:
        handle, temporary = _create_beside(place)
        yield handle, temporary
        os.replace(temporary, place)
        temporary = None
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def _create_beside(place: Path) -> tuple[int, str]:
    """A new file for a temporary of `place`, open for writing, and its path; the folder is made when absent."""
    folder, name = os.path.split(place)
    sweep_once(folder)
    temporary = os.path.join(folder, temporary_name(name))
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(temporary, how, 0o666), temporary
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        return os.open(temporary, how, 0o666), temporary


def _write_all(handle: int, content: bytes | memoryview) -> None:
    with open(handle, "wb", buffering=0) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]


def _place_of(target: Path) -> Path | None:
    """The path that a new file takes, with links followed; None where there is something that no file may replace."""
    # Most files are new: `lstat` would raise an error for them, which is four times as slow.
    if not os.access(target, os.F_OK, follow_symlinks=False):
        return target
    mode = os.lstat(target).st_mode
    if stat.S_ISLNK(mode):
        with suppress(FileNotFoundError):
            # A link to an absent file: the absent file is made.
            mode = os.stat(target).st_mode
        return None if _is_device(mode) or _descriptor_of(target) is not None else Path(os.path.realpath(target))
    return None if _is_device(mode) else target


def _is_device(mode: int) -> bool:
    # For a folder, the system call reports the error.
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def _descriptor_of(target: Path) -> str | None:
    """The path of an open file of a process that a link such as /dev/stdout leads to; None where it leads elsewhere."""
    path = os.fspath(target)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(os.path.abspath(path))
        folder = os.path.realpath(folder)
        path = os.path.join(folder, name)
        if _DESCRIPTORS.fullmatch(folder):
            return path
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _open_device(target: Path) -> int:
    """Open what cannot be replaced for writing; of this process's own streams the writing goes on where they are."""
    folder, number = os.path.split(_descriptor_of(target) or "")
    if number.isdigit() and folder in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
        return os.dup(int(number))
    return os.open(target, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)


@contextmanager
def _writing_through(target: Path) -> Iterator[Path]:
    """A temporary path whose content is copied into `target` when the block ends without an error."""
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(target))
    with temporary_folder("through") as folder:
        temporary = folder / target.name
        temporary.touch()
        yield temporary
        with temporary.open("rb") as source, open(_open_device(target), "wb", buffering=0) as file:
            shutil.copyfileobj(source, file)


def _explained(error: OSError, target: Path) -> SepmlError | None:
    """The error as a message about the target; None where it concerns another file."""
    if error.errno in _FULL:
        return SepmlError(f"{target}: no space left on the disk; free some and run the same command again")
    if blocking := _not_a_folder(target):
        return SepmlError(f"{target}: cannot be written, as {blocking} is a file, expected a folder")
    # Writing to an open file gives no name; the temporary one's may be absolute.
    places = {*target.absolute().parents, *Path(os.path.realpath(target)).parents}
    if error.filename is None or Path(error.filename).absolute().parent in places:
        return SepmlError(f"{target}: cannot be written: {error.strerror}")
    return None


def _not_a_folder(target: Path) -> Path | None:
    return next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
