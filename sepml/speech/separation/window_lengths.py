"""The windows in which long mixtures are separated, and the delay of live separation."""

from sepml.errors import SepmlError

SHORTEST_SEGMENT = 1.0
"""Seconds: shorter windows hold too little speech to tell speakers apart, and most of their computation is overlap."""
LARGEST_OVERLAP = 0.95
SHORTEST_DELAY, LONGEST_DELAY = 0.2, 10.0
SEGMENT_SECONDS, OVERLAP = 10.0, 0.5
"""Of windows of fast networks: averaging where they overlap gains 0.1 to 0.2 dB (`tools/bench/long_files.py`)."""
SLOW_SEGMENT_SECONDS, SLOW_OVERLAP = 20.0, 0.1
"""Of windows of slow networks: little is computed twice."""
_FEW_FRAMES = 0.01
"""Networks with a stride of at least this many seconds are fast."""


def check_windows(segment: float | None, overlap: float | None) -> None:
    """Refuse windows that are too short or overlap too much; None is the default.

    Raises:
        SepmlError: the segment, in seconds, or the overlap, a fraction of it, is out of its range.
    """
    if segment is not None and not SHORTEST_SEGMENT <= segment < float("inf"):
        raise SepmlError(f"segment is {segment} s, expected {SHORTEST_SEGMENT:g} s or more")
    if overlap is not None and not 0 < overlap <= LARGEST_OVERLAP:
        raise SepmlError(f"overlap is {overlap}, expected a fraction of the segment above 0, {LARGEST_OVERLAP} at most")


def check_delay(delay: float) -> None:
    """Refuse a delay of live separation that is out of its range.

    Raises:
        SepmlError: it is, in seconds.
    """
    if not SHORTEST_DELAY <= delay <= LONGEST_DELAY:
        raise SepmlError(f"the delay is {delay} s, expected {SHORTEST_DELAY} to {LONGEST_DELAY:g} s")


def window_lengths(rate: int, stride: int, segment: float | None, overlap: float | None) -> tuple[int, int]:
    """The length of a window and the step from one to the next, in samples of the networks.

    Args:
        rate: of the networks, Hz. stride: theirs, samples.
        segment, overlap: see `Separator.separate`.

    Raises:
        SepmlError: see `check_windows`.
    """
    check_windows(segment, overlap)
    fast = stride >= _FEW_FRAMES * rate
    if segment is None:
        segment = SEGMENT_SECONDS if fast else SLOW_SEGMENT_SECONDS
    if overlap is None:
        overlap = OVERLAP if fast else SLOW_OVERLAP
    length = max(round(segment * rate), 2)
    return length, min(max(round(length * (1 - overlap)), 1), length - 1)
