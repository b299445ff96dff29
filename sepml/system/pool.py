"""Pools of processes, which end with the process they work for."""

import copy
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from sepml.errors import SepmlError

Result = TypeVar("Result")


def end_with_parent() -> None:
    """Let this process end when its parent is gone; the initializer of a pool.

    A killed parent cannot tell its workers to stop, and they would wait for work for ever, as each of them keeps the pipe
    open that it waits on.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _begin() -> None:
    """Workers end with their parent, and their numerical libraries use one thread: the processes fill the cores."""
    end_with_parent()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


class Pool(ProcessPoolExecutor):
    """A pool of processes that end with this one; see `pool_of`, which makes it and closes it."""

    def __init__(self, jobs: int, context: BaseContext) -> None:
        self._started: list[BaseProcess] = []
        # Its class of processes is no part of the declared type.
        original: Any = context

        def start(*arguments: Any, **options: Any) -> BaseProcess:
            self._started.append(original.Process(*arguments, **options))
            return self._started[-1]

        remembering: Any = copy.copy(context)
        remembering.Process = start
        super().__init__(jobs, mp_context=remembering, initializer=_begin)

    def submit(self, function: Callable[..., Result], /, *args: Any, **options: Any) -> "Future[Result]":
        """As in the base class.

        Raises:
            SepmlError: the system refuses to start a process.
        """
        try:
            return super().submit(function, *args, **options)
        except OSError as error:
            raise _not_started(error) from error

    def end_workers(self) -> None:
        """End the processes, whatever they do: where work is interrupted, nobody waits for what is begun."""
        for process in self._started:
            process.terminate()

    def endings(self) -> str:
        """How processes failed, apart from the pool's own SIGTERM; to be called after `shutdown`."""
        codes = {process.pid: process.exitcode for process in self._started if process.exitcode}
        own = {pid: code for pid, code in codes.items() if code != -signal.SIGTERM} or codes
        endings = [f"pid {pid} {ended_by(code)}" for pid, code in own.items() if code is not None]
        return ", ".join(endings) or "none says how"


@contextmanager
def pool_of(jobs: int, function: Callable[..., object]) -> Iterator[Pool]:
    """A pool of processes for calls of `function`, which is imported in them with this process's module path.

    Raises:
        SepmlError: a process ended while it was needed, or none can be started.
    """
    try:
        pool = Pool(jobs, _context(function))
    except OSError as error:
        raise _not_started(error) from error
    try:
        yield pool
    except KeyboardInterrupt:
        pool.end_workers()
        raise
    except BrokenProcessPool as error:
        pool.shutdown(wait=True, cancel_futures=True)
        raise SepmlError(f"a worker process ended before its work was done: {pool.endings()}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _not_started(error: OSError) -> SepmlError:
    return SepmlError(f"worker processes cannot be started: {error.strerror or error}; fewer jobs need fewer of them")


def ended_by(code: int) -> str:
    """The end of a process in words.

    Args:
        code: its exit code, or the negative number of the signal that ended it.

    >>> ended_by(-9), ended_by(3)
    ('was ended by signal 9 (SIGKILL)', 'ended with exit code 3')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was ended by signal {-code}"


def _context(function: Callable[..., object]) -> BaseContext:
    """The start method: fork, which is fast, unless this process has threads, which a fork would lack."""
    if sys.platform == "linux" and "torch" not in sys.modules and threading.active_count() == 1:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    module = getattr(function, "func", function).__module__
    if module != "__main__":
        # Imported once, by the server, and not by each process.
        context.set_forkserver_preload([module])
    with _module_path_in_environment():
        forkserver.ensure_running()
    return context


@contextmanager
def _module_path_in_environment() -> Iterator[None]:
    """Let a Python that is started here find modules where this one does.

    Otherwise the server would look in its working folder first, where a folder `sepml` may be another package.
    """
    wanted = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
