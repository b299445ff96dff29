"""The files of one mixture that is to be scored: their names and their samples."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import read_wav
from sepml.speech.data.mixtures import AUDIO_SUFFIXES

# `<id>_s1.wav` as sepml and wsj0-mix name them, `<id>_est1.wav` as others do.
_NUMBERED = re.compile(r"(.+)_(?:s|est)(\d+)")
_FOLDER = re.compile(r"s(\d+)")
Estimates = Mapping[str, Mapping[int, Path]]
_DIGITS = 16


@dataclass(frozen=True)
class Trial:
    """The files of one mixture to be scored.

    Attributes:
        sources: the references.
        ests: as many estimates or more, in the order of the separator.
    """

    id: str
    mixture: Path
    sources: tuple[Path, ...]
    ests: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.mixture, *self.sources, *self.ests)


def find_estimates(folder: Path) -> dict[str, dict[int, Path]]:
    """The estimates in a folder: mixture's id -> number of the estimate -> its file.

    Files are named `<id>_s1.wav`, `<id>_est1.wav` or `s1/<id>.wav`, or the same with .flac.

    Raises:
        SepmlError: two files are the same estimate.
    """
    found: dict[str, dict[int, Path]] = {}
    for mixture_id, number, path in _named(folder):
        beside = found.setdefault(mixture_id, {}).setdefault(number, path)
        if beside is not path:
            other = beside.name if beside.parent == path.parent else beside
            raise SepmlError(f"{path}: {other} is the same estimate; expected one file")
    return found


def estimates_of(found: Estimates, folder: Path, mixture_id: str, n_src: int) -> tuple[Path, ...]:
    """The files of a mixture's estimates, one for each source or more; where one is absent, the name that is expected.

    Args:
        found: the result of `find_estimates(folder)`.
    """
    there = found.get(mixture_id, {})
    return tuple(there.get(n, folder / f"{mixture_id}_s{n}.wav") for n in range(1, max(n_src, len(there)) + 1))


def audio_files(folder: Path) -> dict[str, Path]:
    """The audio files of a folder by their stem, sorted.

    Raises:
        SepmlError: there is no such folder, it holds none, or two have the same stem.
    """
    if not folder.is_dir():
        raise SepmlError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in _audio(folder):
        if path.stem in files:
            raise SepmlError(f"{path}: {files[path.stem].name} has the same name; expected one file for each mixture")
        files[path.stem] = path
    if not files:
        raise SepmlError(f"{folder}: holds no {' or '.join(AUDIO_SUFFIXES)} files")
    return files


def fingerprint_of_test(mixture: np.ndarray, sources: np.ndarray, rate: int) -> str:
    """A fingerprint of the samples of a mixture and its references: names, paths and file formats do not matter.

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
    parts = [hashlib.sha256(np.ascontiguousarray(x, np.float32).data).digest() for x in (mixture, *sources)]
    return hashlib.sha256(b"%d" % rate + parts[0] + b"".join(sorted(parts[1:]))).hexdigest()[:_DIGITS]


def read_trial(trial: Trial) -> tuple[np.ndarray, np.ndarray, int]:
    """The mixture (T,) of a trial, its sources (n_src, T) and the rate in Hz.

    Raises:
        SepmlError: a file is missing, is no audio, differs in rate or length from the mixture, or holds nan or inf.
    """
    mixture, rate = read_wav(trial.mixture)
    if not np.isfinite(mixture).all():
        raise SepmlError(f"{trial.mixture}: holds samples that are nan or infinite")
    return mixture, np.stack([read_like(mixture, trial.mixture, rate, path) for path in trial.sources]), rate


def read_like(mixture: np.ndarray, mixture_path: Path, rate: int, path: Path, tolerance: int | None = None) -> np.ndarray:
    """The samples (T,) of a source or an estimate.

    Args:
        mixture: (T,) samples.
        rate: Hz, of the mixture.
        tolerance: samples by which an estimate may be longer or shorter than the mixture; None is for a reference.

    Raises:
        SepmlError: as `read_trial`.
    """
    x, _ = read_wav(path, sample_rate=rate)
    if abs(len(x) - len(mixture)) > (tolerance or 0):
        allowed = (
            f"length tolerance: {tolerance} samples" if tolerance is not None else "references are as long as their mixture"
        )
        raise SepmlError(f"{path}: has {len(x)} samples, the mixture {mixture_path} has {len(mixture)} ({allowed})")
    if not np.isfinite(x).all():
        raise SepmlError(f"{path}: holds samples that are nan or infinite")
    return x


def _named(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """The id of the mixture, the number of the estimate, and the file."""
    for path in _audio(folder):
        if match := _NUMBERED.fullmatch(path.stem):
            yield match[1], int(match[2]), path
    for below in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := _FOLDER.fullmatch(below.name)) and below.is_dir():
            for path in _audio(below):
                yield path.stem, int(match[1]), path


def _audio(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    # Names that begin with a dot are temporary files of a run that was killed.
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES and path.name[0] != ".")
