"""`sepml serve`: a page to upload or record, separate, listen and download."""

import asyncio
import logging
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn

from sepml.errors import SepmlError
from sepml.speech.demo.app import Page
from sepml.speech.demo.guard import DeadlineProtocol, is_loopback
from sepml.speech.demo.jobs import Capacity, Jobs
from sepml.speech.demo.uploads import Limits, Pace
from sepml.speech.separation.separator import Separator
from sepml.speech.separation.separators import Separators
from sepml.system.temporaries import temporary_folder

log = logging.getLogger(__name__)
_MOST_CONNECTIONS = 500
_ENDING_SECONDS = 2
_BACKLOG = 512
_LONGEST_HEADER = 65_536
"""Bytes; the address of an archive names all its jobs."""
_LIBRARIES = ("uvicorn", "python_multipart", "asyncio")


class PageServer:
    """Serves the page on one address; a context manager.

    Args:
        separator: of any rate; or several, for a choice by the number of talkers.
        host: an address of this machine; with any but a loopback address, other machines have access.
        port: 0 selects a free one.
        limits, capacity, pace: of uploads, of jobs that are kept, and of the rate of uploads.

    Raises:
        SepmlError: the address is not available, or there is no folder for uploads.
    """

    def __init__(
        self,
        separator: Separator | Separators,
        host: str = "127.0.0.1",
        port: int = 7860,
        limits: Limits | None = None,
        capacity: Capacity | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.host = host
        with ExitStack() as stack:
            self._socket = stack.enter_context(_listening(host, port))
            try:
                self.folder = stack.enter_context(temporary_folder("serve"))
            except OSError as error:
                raise SepmlError(f"{tempfile.gettempdir()}: cannot hold uploads and results: {error.strerror}") from error
            self.port: int = self._socket.getsockname()[1]
            self.jobs = Jobs(Separators.of(separator), self.folder, limits or Limits(), capacity)
            stack.callback(self.jobs.close)
            self._opened = stack.pop_all()
        app = Page(self.jobs, host, pace or Pace()).app()
        config = uvicorn.Config(
            app,
            http=DeadlineProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            backlog=_BACKLOG,
            h11_max_incomplete_event_size=_LONGEST_HEADER,
            timeout_graceful_shutdown=_ENDING_SECONDS,
        )
        self._server = uvicorn.Server(config)
        if not is_loopback(host):
            log.warning("%s: everyone who can reach this machine over the network can use the page", host)

    @property
    def url(self) -> str:
        """The address of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def serve_forever(self) -> None:
        """Answer requests until `shutdown` is called, or in the main thread until SIGINT or SIGTERM, which is raised again."""
        with _forwarded():
            self._server.run(sockets=[self._socket])

    def shutdown(self) -> None:
        """Let `serve_forever`, which runs in another thread, end."""
        self._server.should_exit = True

    def close(self) -> None:
        """Stop the separations and listening, and delete uploads and results; further calls do nothing."""
        self._opened.close()

    def __enter__(self) -> "PageServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listening(host: str, port: int) -> socket.socket:
    """A bound socket: the address is known and reserved before anything else is done."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Allows a port to be used again directly after another server on it has ended.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SepmlError(f"{host}, port {port}: cannot be listened on: {reason}; choose another `port`") from error
    return listener


class _Forward(logging.Handler):
    """Forwards log records of the libraries: own errors as errors, those caused by visitors at level DEBUG."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        ours = error is not None and not isinstance(error, asyncio.CancelledError | ConnectionError)
        log.log(logging.ERROR if ours else logging.DEBUG, "%s", record.getMessage().strip(), exc_info=record.exc_info)


@contextmanager
def _forwarded() -> Iterator[None]:
    """Forward the log records of the libraries to this module's logger."""
    handler = _Forward()
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
