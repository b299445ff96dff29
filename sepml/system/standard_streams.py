"""Standard input, output and error that a process was started without, as by `2>&-` or by some service managers."""

import io
import os
import sys
from typing import IO

_STREAMS = (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))


class ClosedStream(io.TextIOWrapper):
    """A standard stream that was closed when the process began: it is empty, and what is written to it is dropped."""


def open_closed_streams() -> None:
    """Give streams that are closed something to stand on: printing, logging and worker processes need all three.

    Their descriptors are taken as well. A file that is opened later would get them, and with it whatever libraries write to
    standard error.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            # The lowest free one, which is this one: those before it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        setattr(sys, name, ClosedStream(open(os.devnull, mode), encoding="utf-8"))  # noqa: SIM115


def is_closed(stream: IO[str] | None) -> bool:
    """Whether a standard stream was closed when the process began."""
    return stream is None or isinstance(stream, ClosedStream)
