"""The one kind of error a user can cause."""

import difflib
from collections.abc import Iterable


class SepmlError(Exception):
    """A fault the user can cause and mend.

    The message is one line: the file, what was found, what was expected and the way out. The command line prints it
    without a traceback and exits with 1.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or the empty string.

    >>> did_you_mean("treshold", ["threshold", "weight"])
    "; did you mean 'threshold'?"
    >>> did_you_mean("zzz", ["threshold"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
