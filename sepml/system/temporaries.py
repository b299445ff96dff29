"""Temporary files and folders that name the process they belong to, so that what a killed process left can be deleted."""

import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_MARK = ".sepml-"
_LONGEST_STEM, _LONGEST_SUFFIX = 40, 16
_LONGEST_AGE_S = 24 * 3600
_swept: set[str] = set()
_TOKEN = re.compile(r"(?P<host>[A-Za-z0-9_]+)-(?P<pid>[1-9]\d*)-(?P<start>[0-9a-f]+)")
_DEAD_STATES = "ZXx"


@dataclass(frozen=True)
class ProcessId:
    """A process.

    Attributes:
        host: name of the host and a digest that tells apart hosts of one name, and containers of one host.
        pid: its number on the host.
        start: of the boot and of the time since then at which it began, hexadecimal; `0` where the system does not tell.
            It guards against a later process of the same number.
    """

    host: str
    pid: int
    start: str

    def __str__(self) -> str:
        """A token for file names, see `parse_process`."""
        return f"{self.host}-{self.pid}-{self.start}"


def this_process() -> ProcessId:
    """The process that calls."""
    return _this(os.getpid())


def this_token() -> str:
    """The token of the process that calls."""
    return str(this_process())


def parse_process(token: str) -> ProcessId | None:
    """The process of a token; None when it is none.

    >>> parse_process("vm_1f2e3d-712-1c8bf6960000ab")
    ProcessId(host='vm_1f2e3d', pid=712, start='1c8bf6960000ab')
    >>> parse_process("vm-0-1") is None
    True
    """
    found = _TOKEN.fullmatch(token)
    return ProcessId(found["host"], int(found["pid"]), found["start"]) if found else None


def is_running(process: ProcessId) -> bool | None:
    """Whether a process is running; None when it is one of another host, of which nothing is known here."""
    if process.host != _host():
        return None
    try:
        os.kill(process.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    start = _start_of(process.pid)
    # Other users' processes may be hidden: one whose start cannot be told counts as running.
    return start == process.start if start is not None else True


@lru_cache(maxsize=1)
def _this(pid: int) -> ProcessId:
    return ProcessId(_host(), pid, _start_of(pid) or "0")


@lru_cache(maxsize=1)
def _host() -> str:
    name = platform.node()
    facts = [name]
    with suppress(OSError):
        facts.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace"))
    with suppress(OSError):
        # Containers number their processes by themselves.
        facts.append(os.readlink("/proc/self/ns/pid"))
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9]', '_', name)[:12]}_{digest}"


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a process began; the empty string where it has ended and is not yet reaped, None where it cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in brackets, may hold anything.
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return "" if state.decode() in _DEAD_STATES else f"{_boot()}{int(fields[18]):x}"


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
