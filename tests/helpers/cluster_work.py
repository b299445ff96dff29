"""Work for a cluster's processes, which import it by this name."""

import os
import signal
import time
from pathlib import Path

from sepml.errors import SepmlError


def squared(number: int) -> int:
    if number == 3:
        raise SepmlError("3.wav: no speech")
    return number * number


def ends_once(number: int, folder: Path) -> int:
    """Ends its process, the first time that it is asked for 5."""
    mark = folder / "ended"
    if number == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_ends(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow(number: int, folder: Path) -> int:
    (folder / f"{number}").touch()
    time.sleep(0.5)
    return number
