"""The progress of one recording: a live line, and the levels of its outputs at the end; elsewhere lines of the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sepml.speech.audio.signals import Recording
from sepml.speech.separation.inputs import Outcome, printable
from sepml.speech.separation.separator import WHOLE_SECONDS
from sepml.speech.separation.work import SEPARATING, Blocks, Watch
from sepml.system.progress import is_live, live_line, track

if TYPE_CHECKING:
    from sepml.system.live_lines import LiveLine

LONG_SECONDS = 60.0
"""Recordings above this length show their progress where there are no live lines."""


@contextmanager
def file_line(label: str, watch: Watch | None = None) -> Iterator[Watch]:
    """What shows the progress of a recording until its outputs are written: `watch` where there is one."""
    if watch is not None:
        yield watch
        return
    if not is_live():
        yield _logged
        return
    with live_line(Path(label).name, in_seconds=True) as line:
        yield _Drawn(line)


def show_levels(outcome: Outcome) -> None:
    """Show the levels of the outputs over time, where there are live lines."""
    if is_live() and outcome.outputs and outcome.heard is not None and outcome.seconds:
        from sepml.speech.separation.level_picture import print_levels

        print_levels([*map(Path, outcome.outputs)], outcome.heard.shares, outcome.seconds)


class _Drawn:
    """Passes blocks on and draws the line of their recording."""

    def __init__(self, line: "LiveLine") -> None:
        self._line = line

    def __call__(self, blocks: Blocks, recording: Recording, doing: str, label: str) -> Blocks:
        rate, frames = recording.rate, recording.frames
        # Shorter ones are separated in one piece after all of it was read: how long that takes is not known.
        # Nor is it how long talkers are counted, which begins then.
        known = doing == SEPARATING and frames is not None and frames > WHOLE_SECONDS * rate
        self._line.begin(f"{doing} {printable(Path(label).name)}", frames / rate if known and frames else None)
        for block in blocks:
            for begin in range(0, len(block), rate):
                part = block[begin : begin + rate]
                yield part
                self._line.advance(len(part) / rate)


def _logged(blocks: Blocks, recording: Recording, doing: str, label: str) -> Blocks:
    if recording.frames is not None and recording.frames <= LONG_SECONDS * recording.rate:
        return blocks
    return track(blocks, f"{doing} {label}", total=recording.frames and -(-recording.frames // recording.block))
