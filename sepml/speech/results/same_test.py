"""Whether score folders are of the same mixtures and references: only then may their numbers be compared."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepml.speech.results.tables import read_tested

_DIGITS = 16


@dataclass(frozen=True)
class Agreement:
    """How the tests of two score folders stand to each other.

    Attributes:
        shared: mixtures that both have.
        differing: those of them with another mixture or other references, by their id.
        unchecked: of the shared ones, how many lack a fingerprint in one of the two.
    """

    shared: int
    differing: tuple[str, ...]
    unchecked: int


def fingerprint_of_test(mixture: np.ndarray, sources: np.ndarray, rate: int) -> str:
    """What tells a mixture with its references from others, by their samples: names, paths and file formats do not matter.

    Args:
        mixture: (T,) float32, as read.
        sources: (n_src, T) float32; their order does not matter, as scores do not depend on it.
        rate: Hz.

    >>> mixture, sources = np.zeros(4, np.float32), np.eye(2, 4, dtype=np.float32)
    >>> fingerprint_of_test(mixture, sources, 8000) == fingerprint_of_test(mixture, sources[::-1], 8000)
    True
    >>> fingerprint_of_test(mixture, sources, 8000) == fingerprint_of_test(mixture, sources[:1], 8000)
    False
    """
    parts = [hashlib.sha256(np.ascontiguousarray(x, np.float32)).digest() for x in (mixture, *sources)]
    return hashlib.sha256(b"%d" % rate + parts[0] + b"".join(sorted(parts[1:]))).hexdigest()[:_DIGITS]


def agreement(first: Path, other: Path) -> Agreement:
    """Compare the tests of two score folders, mixture by mixture.

    Folders of earlier versions have no fingerprints; of these only the numbers of sources are compared.

    Raises:
        SepmlError: one holds no scores.csv, or none that `sepml score` writes.
    """
    one, two = read_tested(first), read_tested(other)
    shared = [mixture_id for mixture_id in one if mixture_id in two]
    differing = [mixture_id for mixture_id in shared if not one[mixture_id].agrees(two[mixture_id])]
    known = sum(bool(one[mixture_id].fingerprint and two[mixture_id].fingerprint) for mixture_id in shared)
    return Agreement(len(shared), tuple(differing), len(shared) - known)


def refusal(first: Path, other: Path, found: Agreement) -> str:
    """Why two folders are not to be compared; empty where nothing speaks against it."""
    if not found.shared:
        return f"{other}: shares no mixture with {first}; expected scores of the same mixtures"
    if not found.differing:
        return ""
    count = f"{len(found.differing)} of {found.shared} mixtures"
    return f"{other}: {count} are other ones, or have other references, than those of {first}, such as {found.differing[0]}"


def caution(names: Sequence[str]) -> list[str]:
    """The line on folders whose tests could not be compared with that of the first; none where there are no such folders."""
    if not names:
        return []
    why = "these scores, or the first, were written by an earlier version and carry no fingerprints"
    return [f"Not checked: whether {', '.join(names)} are of the same mixtures and references as the first; {why}."]
