"""What may be asked of a separator, checked before anything is loaded."""

from numbers import Integral

from sepml.errors import SepmlError

SHORTEST_SEGMENT = 1.0
"""Seconds: windows of fewer hold no word by which speakers are told apart, and cost more than they hold."""
LARGEST_OVERLAP = 0.95


def check_windows(segment: float | None, overlap: float | None) -> None:
    """Refuse windows that make no sense or would take for ever; None is the default.

    Raises:
        SepmlError: the segment, in seconds, or the overlap, a fraction of it, is out of its range.
    """
    if segment is not None and not SHORTEST_SEGMENT <= segment < float("inf"):
        raise SepmlError(f"segment is {segment} s, expected {SHORTEST_SEGMENT:g} s or more")
    if overlap is not None and not 0 < overlap <= LARGEST_OVERLAP:
        raise SepmlError(f"overlap is {overlap}, expected a fraction of the segment above 0, {LARGEST_OVERLAP} at most")


def check_rate(sample_rate: object) -> None:
    """Refuse what is no sample rate.

    Raises:
        SepmlError: it is no whole number above 0.
    """
    if not isinstance(sample_rate, Integral) or sample_rate <= 0:
        raise SepmlError(f"the sample rate is {sample_rate!r}, expected a whole number of Hz above 0")
