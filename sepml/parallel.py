"""Work spread over processes."""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from sepml.errors import SepmlError
from sepml.orphans import end_with_parent
from sepml.progress import track

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 8


@dataclass(frozen=True)
class Failure(Generic[Item]):
    """An item whose work raised SepmlError, and the message."""

    item: Item
    message: str


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int = 0, what: str = "working", chunk: int = 1
) -> Iterator[Result | Failure[Item]]:
    """Yield `function(item)` of every item, in the order in which they are done.

    Args:
        function: picklable (a module-level function or a `functools.partial` of one).
        jobs: processes; 0 = all cores, 1 = in this process.
        what: the name of the work for the progress display.
        chunk: items that a process is handed at a time; more than 1 pays where one takes but milliseconds.

    Yields:
        a result, or a `Failure` where the function raised SepmlError. Any other exception is a bug and is raised here.
    """
    jobs = min(jobs or cores(), len(items))
    results = _in_process(function, items) if jobs <= 1 else _in_pool(function, items, jobs, chunk)
    yield from track(results, what, total=len(items))


def _guarded(function: Callable[[Item], Result], item: Item) -> Result | Failure[Item]:
    try:
        return function(item)
    except SepmlError as error:
        return Failure(item, str(error))


def _in_process(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result | Failure[Item]]:
    for item in items:
        yield _guarded(function, item)


def _begin() -> None:
    """Workers end with their parent, and their numerical libraries use one thread: the processes fill the cores."""
    end_with_parent()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _context(function: Callable[..., object]) -> multiprocessing.context.BaseContext:
    """How processes start: as copies of this one, which costs nothing, unless it has threads that a copy would lack."""
    if sys.platform == "linux" and "torch" not in sys.modules and threading.active_count() == 1:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    module = getattr(function, "func", function).__module__
    if module != "__main__":
        # Imported once, by the server, and not by each process.
        context.set_forkserver_preload([module])
    return context


def _guarded_all(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | Failure[Item]]:
    return [_guarded(function, item) for item in items]


def _in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int, chunk: int
) -> Iterator[Result | Failure[Item]]:
    context = _context(function)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin)
    waiting: set[Future[list[Result | Failure[Item]]]] = set()
    try:
        # Only a few items are handed out ahead: results are consumed as they come and memory stays bounded.
        for start in range(0, len(items), chunk):
            waiting.add(pool.submit(_guarded_all, function, items[start : start + chunk]))
            if len(waiting) >= _AHEAD * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (result for future in done for result in future.result())
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (result for future in done for result in future.result())
    except BrokenProcessPool as error:
        raise SepmlError("a worker process was killed (out of memory?); run again with fewer jobs, -j 1") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
