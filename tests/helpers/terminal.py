"""A terminal for commands that run in this process: a pseudo-terminal as standard error, and what a user would see on it."""

import os
import pty
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyte
import pytest


class Terminal:
    """What was written to a pseudo-terminal.

    Attributes:
        columns: its width. written: all bytes so far, complete when the block of `terminal` has ended.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.written = b""

    def read_from(self, master: int, ended: threading.Event) -> None:
        """Read until there is nothing more; processes that were started meanwhile may keep the other side open."""
        while True:
            last = ended.is_set()
            if select.select([master], [], [], 0 if last else 0.01)[0]:
                self.written += os.read(master, 1 << 16)
            elif last:
                return

    @property
    def text(self) -> str:
        return self.written.decode("utf-8", "replace")

    def screen(self, written: str | None = None) -> list[str]:
        """The lines that are seen after all that was written, or after the beginning of it; pyte draws them."""
        screen = pyte.Screen(self.columns, 60)
        pyte.Stream(screen).feed(self.text if written is None else written)
        assert not screen.cursor.hidden
        lines = [line.rstrip() for line in screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def moments(self) -> Iterator[list[str]]:
        """What was seen before each redrawing."""
        begin = 0
        while (begin := self.text.find("\r\x1b[2K", begin + 1)) > 0:
            yield self.screen(self.text[:begin])


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 100, encoding: str = "utf-8") -> Iterator[Terminal]:
    """Standard error is a terminal in this block, of a user whose environment says nothing special."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", str(columns)), ("LINES", "60")):
        monkeypatch.setenv(name, value)
    master, slave = pty.openpty()
    seen = Terminal(columns)
    ended = threading.Event()
    reader = threading.Thread(target=seen.read_from, args=(master, ended))
    reader.start()
    # Both sides stay open until all is read.
    with open(slave, "w", encoding=encoding, errors="backslashreplace", newline="") as stream:
        try:
            with monkeypatch.context() as patch:
                patch.setattr("sys.stderr", stream)
                yield seen
            stream.flush()
        finally:
            ended.set()
            reader.join()
    os.close(master)
