"""Progress: live lines at the bottom of a terminal, lines of the log elsewhere; and messages that go above the live lines."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sepml.system.process import is_closed

if TYPE_CHECKING:
    from sepml.system.live_lines import LiveLine, LiveLines

log = logging.getLogger(__name__)
T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 20.0
_CLEAR_LINE = "\r\x1b[2K"
_shown: "LiveLines | None" = None
_process = 0


def is_live() -> bool:
    """Whether progress is shown by live lines: messages are wanted, and standard error is a terminal that can redraw a line.

    It is not where TERM is `dumb`, nor where CI is set, as services that run tests do.
    """
    if is_closed(sys.stderr) or not log.isEnabledFor(logging.INFO) or not sys.stderr.isatty():
        return False
    return os.environ.get("TERM", "").lower() not in ("dumb", "unknown") and not os.environ.get("CI")


def track(iterable: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show the progress: a live line with the time left, or a line of the log every 20 s.

    Args:
        what: a short name of the work, such as `mixing tr`.
        total: the number of items, when `iterable` has no length.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)  # type: ignore[arg-type]
    if is_live():
        with live_line(what, total) as line:
            for item in iterable:
                yield item
                line.advance(1)
        return
    last = time.monotonic()
    for count, item in enumerate(iterable, start=1):
        yield item
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%s: %d%s", what, count, f" of {total}" if total else "")


@contextmanager
def live_line(what: str, total: float | None = None, in_seconds: bool = False) -> Iterator["LiveLine"]:
    """A live line below those that are there already; it vanishes at the end. Only where `is_live`.

    Args:
        what: its text.
        total: how much there is to do; None is not known.
        in_seconds: the amount is seconds of sound; and the time is redrawn by a thread while the work stands still.
    """
    line = _lines().add(what, total, in_seconds)
    try:
        yield line
    finally:
        line.close()


def print_above(text: str, picture: str = "", number: int = 0) -> None:
    """Print a line on the terminal, above the live lines. Only where `is_live`.

    Args:
        picture: block characters after the text, in the colour of this number.
    """
    _lines().print(text, picture, number)


def of_terminal() -> tuple[int, str]:
    """Columns and encoding of the terminal. Only where `is_live`."""
    lines = _lines()
    return lines.width, lines.encoding


def end_live_lines() -> None:
    """Remove all live lines, so that the terminal is as before."""
    global _shown
    if _shown is not None and os.getpid() == _process:
        _shown.close()
    _shown = None


class MessageHandler(logging.StreamHandler):
    """Writes messages to standard error, above the live lines where there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            if _shown is None or not _shown.is_drawn:
                super().emit(record)
            elif os.getpid() == _process:
                _shown.print(self.format(record))
            else:
                # A worker, forked while a line was drawn, which its parent draws again.
                self.stream.write(_CLEAR_LINE)
                super().emit(record)
        except Exception:
            self.handleError(record)


def _lines() -> "LiveLines":
    """The lines of this process."""
    global _shown, _process
    from sepml.system.live_lines import LiveLines

    if _shown is None or not _shown.is_drawn or os.getpid() != _process:
        _shown, _process = LiveLines(), os.getpid()
    return _shown
