"""Processes told apart across hosts and restarts, so that files can name their owner."""

import hashlib
import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

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
    return _this_token(os.getpid())


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
def _this_token(pid: int) -> str:
    return str(_this(pid))


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
