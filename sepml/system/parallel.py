"""Work spread over processes, of this machine or of a cluster."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sepml.errors import SepmlError
from sepml.system.pool import pool_of
from sepml.system.progress import track
from sepml.system.temporaries import contents

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_WORKERS = 512
_AHEAD = 8
Part = tuple[int, int]
"""(i, n): of items every n-th, from the i-th on, which count from 1."""
WHOLE: Part = (1, 1)
Spread = Callable[[Callable[..., Any], Sequence[Any], int], Iterator[Any]]
"""Does the work of `map_unordered` elsewhere: from (function, items, chunk) to its results."""
_elsewhere: ContextVar[Spread | None] = ContextVar("elsewhere", default=None)


@dataclass(frozen=True)
class Failure(Generic[Item]):
    """An item whose work raised SepmlError, and the message."""

    item: Item
    message: str


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def part_of(items: Sequence[Item], part: Part) -> Sequence[Item]:
    """The items of a part.

    >>> part_of("abcde", (2, 3))
    'be'
    """
    return items[part[0] - 1 :: part[1]]


def part_files(folder: Path) -> list[Path]:
    """The files of parts in a folder, without those that are being written; none where there is no folder."""
    return [folder / name for name in contents(folder) if name.endswith(".json")] if folder.is_dir() else []


def require_every_part(folder: Path, parts: Mapping[Path, Part]) -> None:
    """Refuse to join parts of which one is absent, or that are not of one number of parts.

    Args:
        folder: holds them. parts: each, by its file.

    Raises:
        SepmlError: there is none, one is absent, or one is of another number of parts than the first.
    """
    if not parts:
        raise SepmlError(f"{folder}: holds no part, expected 1-of-N.json and so on")
    first, (_, of) = next(iter(parts.items()))
    for file, (_, other) in parts.items():
        if other != of:
            found = f"one of {other} parts, {first.name} is one of {of}"
            raise SepmlError(f"{file}: {found}; delete those that do not belong there")
    if absent := sorted({*range(1, of + 1)} - {number for number, _ in parts.values()}):
        raise SepmlError(f"{folder}: part {absent[0]} of {of} is absent; run it, then merge again")


def require_once(held: Mapping[Path, Iterable[str]]) -> set[str]:
    """The ids of all parts' mixtures.

    Args:
        held: the ids of each part, by its file.

    Raises:
        SepmlError: two parts hold one.
    """
    seen: dict[str, Path] = {}
    for file, ids in held.items():
        for each in ids:
            if each in seen:
                raise SepmlError(f"{file}: holds mixture {each}, as {seen[each].name} does; expected it once")
            seen[each] = file
    return set(seen)


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int = 0, what: str = "working", chunk: int = 1
) -> Iterator[Result | Failure[Item]]:
    """Yield `function(item)` of every item, in the order in which they are done.

    Args:
        function: picklable (a module-level function or a `functools.partial` of one).
        jobs: processes; 0 = all cores, 1 = in this process. Inside `spread_by` it has no meaning.
        what: the name of the work for the progress display.
        chunk: items that a process gets at a time; more than 1 is faster where an item takes only milliseconds.

    Yields:
        a result, or a `Failure` where the function raised SepmlError. Any other exception is a bug and is raised here.
    """
    jobs, spread = min(jobs or cores(), len(items)), _elsewhere.get()
    if spread is not None and len(items):
        results = spread(function, items, chunk)
    else:
        results = (_guarded(function, item) for item in items) if jobs <= 1 else _in_pool(function, items, jobs, chunk)
    # Of a single item there is no progress.
    yield from track(results, what, total=len(items)) if len(items) > 1 else results


def is_elsewhere() -> bool:
    """Whether `map_unordered` does its work on other machines."""
    return _elsewhere.get() is not None


@contextmanager
def spread_by(spread: Spread) -> Iterator[None]:
    """Let `map_unordered` do its work elsewhere, in the block."""
    token = _elsewhere.set(spread)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def sorted_out(results: Iterable[Result | Failure[Any]]) -> tuple[list[Result], list[Failure[Any]]]:
    """The results of parallel work, and the failures."""
    everything = list(results)
    done = [result for result in everything if not isinstance(result, Failure)]
    return done, [result for result in everything if isinstance(result, Failure)]


def all_of(results: Iterable[Result | Failure[Any]]) -> list[Result]:
    """The results of parallel work.

    Raises:
        SepmlError: the first failure, on which the rest is given up.
    """
    done: list[Result] = []
    for result in results:
        if isinstance(result, Failure):
            raise SepmlError(result.message)
        done.append(result)
    return done


def _guarded(function: Callable[[Item], Result], item: Item) -> Result | Failure[Item]:
    try:
        return function(item)
    except SepmlError as error:
        return Failure(item, str(error))


def _guarded_all(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | Failure[Item]]:
    return [_guarded(function, item) for item in items]


def _in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int, chunk: int
) -> Iterator[Result | Failure[Item]]:
    with pool_of(jobs, function) as pool:
        yield from in_executor(pool, function, items, jobs, chunk)


def in_executor(
    executor: Executor, function: Any, items: Sequence[Item], workers: int, chunk: int
) -> Iterator[Result | Failure[Item]]:
    """As `map_unordered`, by an executor of so many workers.

    Args:
        function: as there, or what the executor takes for it.
    """
    waiting: set[Future[list[Result | Failure[Item]]]] = set()
    # Only a few items are submitted ahead, so that memory stays bounded.
    for start in range(0, len(items), chunk):
        waiting.add(executor.submit(_guarded_all, function, items[start : start + chunk]))
        if len(waiting) >= _AHEAD * workers:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (result for future in done for result in future.result())
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (result for future in done for result in future.result())
