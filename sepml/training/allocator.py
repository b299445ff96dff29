"""The C library's memory allocator, told to keep what training frees."""

import ctypes
import logging
import platform

log = logging.getLogger(__name__)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_BYTES = 2**30
_TRIM_BYTES = 2**31 - 1


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
