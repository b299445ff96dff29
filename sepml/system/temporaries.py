"""Temporary files and folders that name the process they belong to, so that what a killed process left can be deleted."""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sepml.system.processes import ProcessId, is_running, parse_process, this_token

_MARK = ".sepml-"
_LONGEST_STEM, _LONGEST_SUFFIX = 40, 16
_LONGEST_AGE_S = 24 * 3600
_swept: set[str] = set()


def temporary_name(name: str) -> str:
    """A new hidden name for a temporary of the file `name`, with its suffix: libraries go by that.

    It has the form `.<stem>.sepml-<host>-<process>-<start>-<random><suffix>`.
    """
    stem, suffix = os.path.splitext(name)
    if len(suffix) > _LONGEST_SUFFIX:
        suffix = ""
    return f".{stem[:_LONGEST_STEM]}{_MARK}{this_token()}-{os.urandom(4).hex()}{suffix}"


def owner_of(name: str) -> ProcessId | None:
    """The process that a temporary belongs to, by its name; None of any other name.

    >>> owner_of(".mix.sepml-vm_1f2e3d4c-712-1c8bf6960000ab-9e107d9d.wav").pid
    712
    >>> owner_of(".mix.wav") is None
    True
    """
    stem, mark, token = name.rpartition(_MARK)
    if not mark or not stem.startswith("."):
        return None
    return parse_process(os.path.splitext(token)[0].rpartition("-")[0])


def contents(folder: Path) -> list[str]:
    """The sorted names in a folder without those of temporaries, which do not count as content."""
    return sorted(name for name in os.listdir(folder) if owner_of(name) is None)


def sweep_once(folder: str) -> None:
    """`sweep` a folder, when this process asks for the first time."""
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)


def sweep(folder: str) -> None:
    """Delete what killed processes left in a folder.

    Temporaries of processes of this host that have ended are deleted; those of other hosts when nothing has changed them
    for a day.
    """
    with suppress(OSError), os.scandir(folder or os.curdir) as entries:
        for entry in entries:
            if _MARK in entry.name and _is_abandoned(entry):
                _delete(entry)


@contextmanager
def temporary_folder(name: str, within: Path | None = None) -> Iterator[Path]:
    """A new folder that is deleted at the end of the block, or swept later where the process was killed.

    Args:
        name: what it is for, a part of its name.
        within: the folder it is made in, which is made when absent; None is the system's for temporary files.

    Raises:
        OSError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if within is None else within
    sweep(str(parent))
    folder = parent / temporary_name(name)
    parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(entry: "os.DirEntry[str]") -> bool:
    owner = owner_of(entry.name)
    if owner is None:
        return False
    running = is_running(owner)
    if running is None:
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _LONGEST_AGE_S
    return running is False


def _delete(entry: "os.DirEntry[str]") -> None:
    # Another process may sweep as well, and other users' files may not be ours to delete.
    with suppress(OSError):
        if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
