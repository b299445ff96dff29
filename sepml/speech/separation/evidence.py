"""What a window says about the order of its estimates."""

from dataclasses import dataclass

import numpy as np

from sepml.speech.separation.voices import Voices

WEIGHT, _FLOOR = 5.0, 0.03
"""Log-likelihood of a second of overlap (it grows as the root of the seconds) for estimates closer by a factor e, and the
distance below which little is gained.

Chosen by the error of 40 conversations of recorded voices (`tools/bench/long_files.py`, seeds 0 and 2) and two networks.
"""
Order = tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """What a window says about the order of its estimates.

    Attributes:
        distance: (n_src, n_src) energy of estimate i of the window before minus estimate j of this one, over the sounding
            part of what they share, in units of a loud frame's energy.
        active: seconds of sound in what they share.
        voices: of this window's estimates.
    """

    distance: np.ndarray
    active: float
    voices: Voices


def apart_score(evidence: Evidence, last: Order, order: Order) -> float:
    """Log-likelihood of the order of a window after that of the one before, by what they share."""
    apart = evidence.distance[list(last), list(order)].sum()
    return float(-WEIGHT * evidence.active**0.5 * np.log(apart + _FLOOR))
