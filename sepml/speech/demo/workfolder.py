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
    """A temporary folder that belongs to this process.

    Its `owner.json` names the process and is locked as long as the process lives; the kernel frees the lock however it ends.
    Creating a folder removes those whose lock is free. A lock is more reliable than a process number, which is used again and
    has no meaning in another container that shares the folder for temporary files.

    Attributes:
        path: the folder.

    Raises:
        SepmlError: the folder cannot be made.
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        try:
            remove_abandoned(parent)
            self.path, self._lock = _claim(parent)
        except OSError as error:
            raise SepmlError(f"{parent}: cannot hold uploads and results: {error.strerror}") from error

    def close(self) -> None:
        """Delete the folder with everything in it; further calls do nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove the folders of servers that have ended without removing them.

    Folders without `owner.json`, from earlier versions, are removed when they have not changed for a day.

    Returns:
        those removed.
    """
    removed = []
    for folder in sorted(parent.glob(f"{_PREFIX}*")):
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


def _claim(parent: Path) -> tuple[Path, int | None]:
    """A new folder and the open, locked file that names its owner."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        owner = folder / _OWNER
        try:
            lock = os.open(owner, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another server that started before the lock was held may have removed the folder.
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
