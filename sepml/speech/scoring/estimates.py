"""Which files are the estimates of a mixture, by their names."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.data.mixtures import AUDIO_SUFFIXES

# `<id>_s1.wav` as sepml and wsj0-mix name them, `<id>_est1.wav` as others do.
_NUMBERED = re.compile(r"(.+)_(?:s|est)(\d+)")
_FOLDER = re.compile(r"s(\d+)")
Estimates = Mapping[str, Mapping[int, Path]]


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
            raise SepmlError(f"{path}: {other} stands beside it; one file an estimate")
    return found


def estimates_of(found: Estimates, folder: Path, mixture_id: str, n_src: int) -> tuple[Path, ...]:
    """The estimates of a mixture, as many as there are sources or more; the name expected where one is absent.

    Args:
        found: see `find_estimates`; of `folder`.
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
            raise SepmlError(f"{path}: {files[path.stem].name} stands beside it; one name a mixture")
        files[path.stem] = path
    if not files:
        raise SepmlError(f"{folder}: holds no {' or '.join(AUDIO_SUFFIXES)} files")
    return files


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
