"""The one kind of error a user can cause, and parts of its message."""

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 4
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


class SepmlError(Exception):
    """A fault the user can cause and mend.

    The message is one line: the file, what was found, what was expected and the way out. The command line prints it
    without a traceback and exits with 1.
    """


@contextmanager
def about(what: str) -> Iterator[None]:
    """Put in front of an error's message what it is about, such as the file."""
    try:
        yield
    except SepmlError as error:
        raise SepmlError(f"{what}: {error}") from error


def one_line(error: SepmlError) -> str:
    """The message; of an error in a data worker without the traceback that PyTorch puts in front of it.

    >>> one_line(SepmlError("Caught SepmlError in DataLoader worker process 0.\\n...\\nsepml.errors.SepmlError: a.wav: empty"))
    'a.wav: empty'
    """
    lines = str(error).strip().splitlines() or [""]
    if lines[0].startswith(f"Caught {SepmlError.__name__} in "):
        return lines[-1].removeprefix(f"{SepmlError.__module__}.{SepmlError.__name__}: ")
    return " ".join(lines)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or the empty string.

    >>> did_you_mean("treshold", ["threshold", "weight"])
    "; did you mean 'threshold'?"
    >>> did_you_mean("zzz", ["threshold"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def shown(value: object) -> str:
    """A value for a message, shortened.

    >>> shown([1, 2, 3, 4, 5, 6])
    '[1, 2, 3, 4, ...]'
    """
    return _REPR.repr(value).replace("\n", " ")
