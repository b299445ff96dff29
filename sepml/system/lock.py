"""A lock on the folder of an experiment, held by one process at a time."""

import errno
import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sepml.errors import SepmlError
from sepml.system.json_files import parse_json

NAME = ".lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made when absent and, when it is still empty at the end, deleted.

    The system keeps the lock, by `fcntl`, and releases it however the process ends; a file that a killed process left does
    not count. The file says who holds the lock. Where the file system keeps no locks there is none, and a warning says so.

    Raises:
        SepmlError: another process holds it, or the folder cannot be made or written.
    """
    absent = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    if not absent and not folder.is_dir():
        raise SepmlError(f"{folder}: is a file, expected the folder of an experiment")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder / NAME)
    except OSError as error:
        raise SepmlError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        _release(handle, folder / NAME)
        # A run that could not begin leaves nothing.
        with suppress(OSError):
            for parent in absent:
                parent.rmdir()


def _release(handle: int, file: Path) -> None:
    # Deleted while it is locked: whoever opens it meanwhile finds that it has gone, see `_acquire`.
    with suppress(OSError):
        file.unlink()
    os.close(handle)


def _acquire(file: Path) -> int:
    """Open and lock the file.

    Unlike those of `flock`, record locks are not inherited by processes that read data, which outlive a killed one a little.
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                log.warning("%s: its file system keeps no locks; do not train twice at a time in it", file.parent)
                return handle
            said = _said_by(handle)
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise SepmlError(f"{file.parent}: {said}; wait for it to end or choose another folder") from error
            raise
        if _is_at(handle, file):
            _sign(handle, file)
            return handle
        # Its holder deleted it in between: there is another file of the name, or none.
        os.close(handle)


def _sign(handle: int, file: Path) -> None:
    """Say in the file who holds the lock."""
    holder = {"host": platform.node(), "pid": os.getpid(), "since": datetime.now().isoformat(" ", "seconds")}
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
    except OSError:
        _release(handle, file)
        raise


def _is_at(handle: int, file: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(file))
    return False


def _said_by(handle: int) -> str:
    """Who holds the lock, as the file says."""
    try:
        holder = parse_json(os.pread(handle, 4096, 0), NAME)
        return f"process {holder['pid']} on {holder['host']} has been training in it since {holder['since']}"
    except (OSError, SepmlError, KeyError, TypeError):
        # It has only just taken it.
        return "another process is training in it"
