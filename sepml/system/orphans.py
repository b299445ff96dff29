"""Worker processes that end with the process they work for, however that ends."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Let this process end when its parent is gone; the initializer of a pool.

    A killed parent cannot tell its workers to stop, and they would wait for work for ever, as each of them keeps the pipe
    open that it waits on.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
