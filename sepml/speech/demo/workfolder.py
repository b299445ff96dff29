"""The folder for uploads and results of one server, and the removal of folders whose server was killed."""

import fcntl
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from sepml.errors import SepmlError

log = logging.getLogger(__name__)
_PREFIX = "sepml-serve-"
_OWNER = "owner.json"
_UNOWNED_SECONDS = 24 * 3600.0


class WorkFolder:
    """A folder in the system's place for temporary files that belongs to this process.

    Its `owner.json` names the process and is locked as long as the process lives, however that ends; the kernel frees the lock.
    Making a folder removes those whose lock is free. A lock tells better than a process number, which is used again and which
    means nothing in another container that shares the place.

    Attributes:
        path: the folder.

    Raises:
        SepmlError: the folder cannot be made.
    """

    def __init__(self) -> None:
        place = Path(tempfile.gettempdir())
        try:
            sweep(place)
            self.path, self._lock = _claim(place)
        except OSError as error:
            raise SepmlError(f"{place}: cannot hold uploads and results: {error.strerror}") from error

    def close(self) -> None:
        """Delete the folder with everything in it; further calls do nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(place: Path) -> list[Path]:
    """Remove the folders of servers that have ended without removing them.

    Folders without a note of their owner, as earlier versions made, go when nothing in them has changed for a day.

    Returns:
        those removed.
    """
    removed = []
    for folder in sorted(place.glob(f"{_PREFIX}*")):
        try:
            facts = folder.lstat()
            if folder.is_symlink() or not folder.is_dir() or facts.st_uid != os.getuid() or not _is_abandoned(folder):
                continue
        except OSError as error:
            log.debug("%s: not removed: %s", folder, error.strerror)
            continue
        shutil.rmtree(folder, ignore_errors=True)
        log.info("%s: removed; the sepml serve that made it was killed", folder)
        removed.append(folder)
    return removed


def _claim(place: Path) -> tuple[Path, int | None]:
    """A new folder and the open, locked file that names its owner."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        owner = folder / _OWNER
        try:
            lock = os.open(owner, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another server that started before the lock was held may have swept the folder away.
        if owner.exists():
            note = {"host": socket.gethostname(), "process": os.getpid(), "started": datetime.now(UTC).isoformat()}
            os.write(lock, (json.dumps(note) + "\n").encode())
            return folder, lock
        os.close(lock)


def _is_abandoned(folder: Path) -> bool:
    try:
        owner = os.open(folder / _OWNER, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > _UNOWNED_SECONDS
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(owner)
    return True
