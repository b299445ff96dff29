"""Lines at the bottom of a terminal that are drawn again and again, by rich; to be imported where they are shown only."""

import sys
import threading
import time
from typing import cast

from rich.cells import cell_len, set_cell_size
from rich.console import Console, OverflowMethod
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from sepml.system.process import is_closed

_REDRAWN_SECONDS, _TICK_SECONDS = 0.1, 0.25
_SPEED_SECONDS = 600.0
"""The time left is computed from the speed in this time at most."""
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_COLOURS = ("cyan", "yellow", "magenta")


def clock(seconds: float) -> str:
    """A duration.

    >>> clock(7.4), clock(83), clock(3723)
    ('0:07', '1:23', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def cells_of(text: str) -> int:
    """The width of a text, in cells of the terminal."""
    return cell_len(text)


def fitted(text: str, cells: int) -> str:
    """A text padded to so many cells of the terminal, or its end; characters of some scripts take two.

    >>> fitted("mix_s1.wav", 12), fitted("mix_s1.wav", 6), fitted("\N{CJK UNIFIED IDEOGRAPH-4E2D}.wav", 5)
    ('mix_s1.wav  ', 's1.wav', '.wav ')
    """
    while cell_len(text) > cells:
        text = text[1:]
    return set_cell_size(text, cells)


def encoded(text: str, encoding: str) -> str:
    """A text as a terminal of this encoding shows it: other characters are escaped, as standard error does.

    >>> encoded("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "ascii")
    'caf\\\\xe9'
    """
    return text.encode(encoding, "backslashreplace").decode(encoding)


class _What(ProgressColumn):
    """The name of the work, cut where there is no room: names of files are no markup, and may be long."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow=cast(OverflowMethod, task.fields["overflow"]))


class _Amount(ProgressColumn):
    """How much is done, and of how much."""

    def render(self, task: Task) -> Text:
        shown = clock if task.fields["in_seconds"] else lambda amount: f"{amount:.0f}"
        if task.total is None:
            return Text("" if task.fields["in_seconds"] else shown(task.completed))
        return Text(f"{shown(task.completed)} of {shown(task.total)}", style="progress.download")


class _Left(ProgressColumn):
    """The time left; where it is not known, the time since the beginning."""

    def render(self, task: Task) -> Text:
        left = None if task.total is None else task.time_remaining
        if left is None and task.total and task.completed and task.elapsed:
            # Rich knows a speed from the second step on.
            left = task.elapsed * (task.total - task.completed) / task.completed
        return Text(clock(task.elapsed or 0.0) if left is None else f"{clock(left)} left", style="progress.remaining")


class LiveLines:
    """The live lines of this process, and what is printed above them; standard error is the terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, force_terminal=True, force_interactive=True, highlight=False, markup=False)
        bar = BarColumn(max(6, min(30, self._console.width // 4)), table_column=Column(no_wrap=True))
        # What programs print on the terminal meanwhile goes above the lines, too; a pipe gets it as it is.
        redirected = not is_closed(sys.stdout) and sys.stdout.isatty()
        self._progress = Progress(
            # As wide as most texts: the bar stays where it is.
            *(
                _What(Column(min_width=min(40, self._console.width // 3))),
                bar,
                _Amount(Column(no_wrap=True)),
                _Left(Column(no_wrap=True)),
            ),
            console=self._console,
            auto_refresh=False,
            speed_estimate_period=_SPEED_SECONDS,
            transient=True,
            redirect_stdout=redirected,
        )
        self._overflow = "ellipsis" if encoded(_ELLIPSIS, self.encoding) == _ELLIPSIS else "crop"
        self._lock = threading.RLock()
        self._drawn = 0.0
        self._ticking: set[TaskID] = set()
        self._ticker: threading.Thread | None = None

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._console.width

    @property
    def is_drawn(self) -> bool:
        """Whether there is a line."""
        return self._progress.live.is_started

    @property
    def encoding(self) -> str:
        """Of the terminal."""
        return self._console.encoding

    def add(self, what: str, total: float | None, in_seconds: bool) -> "LiveLine":
        """A new line, see `sepml.system.progress.live_line`."""
        with self._lock:
            fields = {"in_seconds": in_seconds, "overflow": self._overflow}
            task = self._progress.add_task(encoded(what, self.encoding), total=total, **fields)  # type: ignore[arg-type]
            if not self.is_drawn:
                self._progress.start()
                # A process that is killed cannot show a hidden one again.
                self._console.show_cursor(True)
            if in_seconds:
                self._ticking.add(task)
                if self._ticker is None:
                    self._ticker = threading.Thread(target=self._tick, daemon=True)
                    self._ticker.start()
            self._redraw(0.0)
        return LiveLine(self, task)

    def change(self, task: TaskID, what: str, total: float | None) -> None:
        """Another text and amount for a line, of which nothing is done."""
        with self._lock:
            if task in self._progress.task_ids:
                self._progress.reset(task, description=encoded(what, self.encoding), total=total)
                self._redraw(0.0)

    def advance(self, task: TaskID, amount: float) -> None:
        """So much more is done; the line is drawn again if it was not a moment ago."""
        with self._lock:
            if task in self._progress.task_ids:
                self._progress.advance(task, amount)
                self._redraw(_REDRAWN_SECONDS)

    def remove(self, task: TaskID) -> None:
        """Take a line away; with the last one the terminal is as before."""
        with self._lock:
            self._ticking.discard(task)
            if task in self._progress.task_ids:
                self._progress.remove_task(task)
            if self._progress.task_ids:
                self._redraw(0.0)
            else:
                self._progress.stop()

    def close(self) -> None:
        """Take all lines away."""
        for task in self._progress.task_ids:
            self.remove(task)

    def print(self, text: str, picture: str = "", number: int = 0) -> None:
        """Print a line, see `sepml.system.progress.print_above`; the terminal wraps long ones, so that they can be copied."""
        with self._lock:
            line = Text.assemble(text, (picture, _COLOURS[number % len(_COLOURS)]))
            self._console.print(line, soft_wrap=True)

    def _redraw(self, after: float) -> None:
        now = time.monotonic()
        if self.is_drawn and now - self._drawn >= after:
            self._drawn = now
            self._progress.refresh()

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK_SECONDS)
            with self._lock:
                if not self._ticking:
                    self._ticker = None
                    return
                self._redraw(_REDRAWN_SECONDS)


class LiveLine:
    """One of the live lines."""

    def __init__(self, lines: LiveLines, task: TaskID) -> None:
        self._lines, self._task = lines, task

    def begin(self, what: str, total: float | None) -> None:
        """Begin another piece of the work: its text, and how much there is to do."""
        self._lines.change(self._task, what, total)

    def advance(self, amount: float) -> None:
        """So much more is done."""
        self._lines.advance(self._task, amount)

    def close(self) -> None:
        """Take the line away."""
        self._lines.remove(self._task)
