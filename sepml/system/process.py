"""A process: threads and memory of numerical libraries, standard streams, and the lock of the folder it trains in."""

import ctypes
import errno
import fcntl
import io
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from sepml.errors import SepmlError
from sepml.system.readers import parse_json

log = logging.getLogger(__name__)
# The largest seed of torch's generators.
LARGEST_SEED = (1 << 64) - 1
LOCK = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_STREAMS = (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 2**31 - 1, 2**30
# In turns of a waiting loop, some 20 to 50 microseconds. libgomp takes this number by itself where it has more threads than
# cores; otherwise it spins 300 times as long.
_SPINS = "1000"


def prepare_libraries() -> None:
    """Set the environment of numerical libraries for a command; to be called before numpy and torch are imported.

    What the user has set stays. Results do not depend on it.

    - OpenBLAS gets one thread: small products dominate scoring and mixing, where its threads cost three times what they
      bring; processes fill the cores. PyTorch does not use OpenBLAS.
    - PyTorch's threads (libgomp) wait a short time for each other and then sleep. By default they spin for milliseconds at
      the end of each parallel region, and beside another busy process they take the core from the very thread that they
      wait for (`tools/bench/contention.py`).
    - PyTorch asks Linux for large pages for its large blocks. Networks with a learned encoder otherwise spend up to half of
      the time of separating in the system, which hands them the memory of every layer in pages of 4 KB.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def keep_large_blocks() -> bool:
    """Let glibc reuse large blocks instead of returning them to the system after every step.

    Activations are large: by default each one is mapped, faulted in page by page and returned in every training step,
    which costs a third of the time on a CPU (`tools/bench/train_step.py`). Safe to call more than once.

    Returns:
        whether the C library is glibc and took the settings.
    """
    if platform.libc_ver()[0] != "glibc":
        log.debug("the C library is not glibc: its allocator is left as it is")
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(*option) == 1 for option in ((_M_MMAP_THRESHOLD, _MMAP_BYTES), (_M_TRIM_THRESHOLD, _TRIM_BYTES)))


class ClosedStream(io.TextIOWrapper):
    """A standard stream that was closed when the process began: it is empty, and what is written to it is dropped."""


def open_closed_streams() -> None:
    """Open closed standard streams on the null device: printing, logging and worker processes need all three.

    Their descriptors are taken as well. A file that is opened later would get them, and with it whatever libraries write to
    standard error.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            # The lowest free one, which is this one: those before it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        setattr(sys, name, ClosedStream(open(os.devnull, mode), encoding="utf-8"))  # noqa: SIM115


def is_closed(stream: IO[str] | None) -> bool:
    """Whether a standard stream was closed when the process began."""
    return stream is None or isinstance(stream, ClosedStream)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made when absent and, when it is still empty at the end, deleted.

    The system keeps the lock, by `fcntl`, and releases it however the process ends; a lock file of a killed process does
    not count. The file names the holder. Where the file system keeps no locks there is none, and a warning says so.

    Raises:
        SepmlError: another process holds it, or the folder cannot be made or written.
    """
    absent = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    if not absent and not folder.is_dir():
        raise SepmlError(f"{folder}: is a file, expected the folder of an experiment")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder / LOCK)
    except OSError as error:
        raise SepmlError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        _write_holder(handle, folder)
        yield
    finally:
        with suppress(OSError):
            # Before the lock is released: a process that opened the file in between finds it gone, see `_acquire`.
            (folder / LOCK).unlink()
        os.close(handle)
        with suppress(OSError):
            for parent in absent:
                parent.rmdir()


def _write_holder(handle: int, folder: Path) -> None:
    holder = {"host": platform.node(), "pid": os.getpid(), "since": datetime.now().isoformat(" ", "seconds")}
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
    except OSError as error:
        raise SepmlError(f"{folder}: cannot be written: {error.strerror}") from error


def _acquire(file: Path) -> int:
    """Open and lock the file.

    Unlike those of `flock`, record locks are not inherited by processes that read data, which outlive a killed one a little.
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                log.warning("%s: its file system keeps no locks; do not train twice at a time in it", file.parent)
                return handle
            holder = _holder(handle)
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise SepmlError(f"{file.parent}: {holder}; wait for it to end or choose another folder") from error
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(file)):
                return handle
        # The holder deleted it in between: there is another file of the name, or none.
        os.close(handle)


def _holder(handle: int) -> str:
    """The process that holds the lock, as the file says."""
    try:
        holder = parse_json(os.pread(handle, 4096, 0), LOCK)
        return f"process {holder['pid']} on {holder['host']} has been training in it since {holder['since']}"
    except (OSError, SepmlError, KeyError, TypeError):
        # It has taken the lock and not yet written.
        return "another process is training in it"
