"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 20.0


def track(iterable: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show how far the work is.

    Args:
        what: a short name of the work, such as `mixing tr`.
        total: the number of items, when `iterable` has no length.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)  # type: ignore[arg-type]
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        from tqdm import tqdm

        # Its watching thread would keep worker processes from starting as copies of this one.
        tqdm.monitor_interval = 0
        yield from tqdm(iterable, desc=what, total=total, leave=False, dynamic_ncols=True)
        return
    last = time.monotonic()
    for count, item in enumerate(iterable, start=1):
        yield item
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%s: %d%s", what, count, f" of {total}" if total else "")
