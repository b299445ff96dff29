"""Files: atomic writing, to a temporary file that is renamed; reading up to a limit; and paths that a file can have.

All writing of sepml goes through here. Symbolic links are followed. What is no regular file, such as a pipe or `/dev/null`,
is not replaced: it gets the content at the end.
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

# Of a text that is held in memory, such as a mix list.
MOST_TEXT_BYTES = 1 << 28
# Bytes of a file's name and of a path, on Linux.
LONGEST_NAME, LONGEST_PATH = 255, 4095
# Bytes of a mixture's id, from which the names of its estimates are made.
LONGEST_ID = LONGEST_NAME - len("_s10.wav")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/\d+(/task/\d+)?/fd")
_MOST_LINKS = 40


def read_limited(path: Path, most: int) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: it is absent, or its folder is a file.
        SepmlError: it cannot be read or is longer than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except (OSError, ValueError) as error:
        raise SepmlError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > most:
        raise SepmlError(f"{path}: is longer than {most:,} bytes, more than such a file can have")
    return content


def decode(content: bytes, source: object) -> str:
    """Bytes as UTF-8 text, without a byte order mark at its start.

    Raises:
        SepmlError: they are not UTF-8 text.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SepmlError(f"{source}: is not a text file: byte {error.start} is no UTF-8") from error


def require_path(path: Path | str, source: str) -> None:
    """Refuse a path that no file can have.

    Raises:
        SepmlError: it or one of its parts is too long, or it holds a NUL or bytes that are no text.
    """
    text = str(path)
    if "\0" in text:
        raise SepmlError(f"{source}: the path {text[:80]!r} holds a NUL character, expected the path of a file")
    # The bytes for the file system: a name that is not UTF-8 comes from the command line as surrogates.
    whole, *parts = (len(part.encode("utf-8", "surrogateescape")) for part in (text, *Path(text).parts))
    if max(parts, default=0) > LONGEST_NAME or whole > LONGEST_PATH:
        what = f"names may have {LONGEST_NAME} bytes and paths {LONGEST_PATH}"
        raise SepmlError(f"{source}: the path {text[:80]!r}... is too long for a file: {what}")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`; it is renamed to `target` only when the block ends without an error.

    The suffix is kept, because some libraries choose the format by it. The folder is made when absent.

    Raises:
        SepmlError: the disk is full, or the folder cannot be made or written.
    """
    with _explaining(target):
        path = _replaceable(target)
        if path is None:
            with _writing_through(target) as temporary:
                yield temporary
        else:
            with _replacing(path) as (handle, name):
                os.close(handle)
                yield Path(name)


def write_bytes(target: Path, content: bytes | memoryview) -> None:
    """Write a file atomically, in few system calls: data sets are many small files.

    Raises:
        SepmlError: see `atomic_path`.
    """
    with _explaining(target):
        path = _replaceable(target)
        if path is None:
            _write_all(_open_device(target), content)
        else:
            with _replacing(path) as (handle, _):
                _write_all(handle, content)


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
def _replacing(path: Path) -> Iterator[tuple[int, str]]:
    """A new file beside `path`, open for writing, and its path; it replaces `path` when the block ends without an error.

    The folder is made when absent.
    """
    folder, name = os.path.split(path)
    sweep_once(folder)
    temporary = os.path.join(folder, temporary_name(name))
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        handle = os.open(temporary, how, 0o666)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        handle = os.open(temporary, how, 0o666)
    try:
        yield handle, temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _write_all(handle: int, content: bytes | memoryview) -> None:
    with open(handle, "wb", buffering=0) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]


def _replaceable(target: Path) -> Path | None:
    """The path that a new file is renamed to, links followed; None where there is a device or a pipe, which stays."""
    # Most files are new: `lstat` would raise an error for them, which is four times as slow.
    if not os.access(target, os.F_OK, follow_symlinks=False):
        return target
    path: Path | None = target
    mode = os.lstat(target).st_mode
    if stat.S_ISLNK(mode):
        with suppress(FileNotFoundError):
            # A link to an absent file: the absent file is made.
            mode = os.stat(target).st_mode
        path = None if _descriptor_of(target) else Path(os.path.realpath(target))
    # For a folder, the system call reports the error; a link is here one to an absent file.
    return path if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode) else None


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
    """Open for writing what cannot be replaced; this process's own streams are continued at their position."""
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


@contextmanager
def _explaining(target: Path) -> Iterator[None]:
    """Raise what the system refuses as an error about the target; other files' errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SepmlError(f"{target}: no space left on the disk; free some and run the same command again") from error
        if blocking := next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None):
            raise SepmlError(f"{target}: cannot be written, as {blocking} is a file, expected a folder") from error
        # Writing to an open file gives no name; the temporary one's may be absolute.
        folders = {*target.absolute().parents, *Path(os.path.realpath(target)).parents}
        if error.filename is None or Path(error.filename).absolute().parent in folders:
            raise SepmlError(f"{target}: cannot be written: {error.strerror}") from error
        raise
