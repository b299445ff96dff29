"""Mixtures on disk: trees of wsj0-mix, WHAM! and LibriMix, trees with a folder for each mixture, files that were moved."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import info
from sepml.system.files import LONGEST_ID

AUDIO_SUFFIXES = (".wav", ".flac")
# The folders of mixtures in the trees of WHAM! and LibriMix.
TYPES = ("mix_clean", "mix_both", "mix_single")
NOISY = ("mix_both", "mix_single")
_MIXTURES = ("mixture", "mix")
_SOURCE = re.compile(r"s([1-9]\d*)")
_NOISE = "noise"


@dataclass(frozen=True)
class Mixture:
    """One mixture and its sources.

    Attributes:
        id: unique within a manifest; the stem of the files in a wsj0-mix tree.
        mixture: the audio file of the mixture.
        sources: the audio files of the sources that sound, s1 first.
        length: samples.
        noise: the audio file of the noise; without one the mixture is the sum of its sources alone.
    """

    id: str
    mixture: Path
    sources: tuple[Path, ...]
    length: int
    noise: Path | None = None


def mixture_in(folder: Path, id: str, n_src: int, length: int) -> Mixture:
    """A mixture in a split folder of the wsj0-mix layout: mix/, s1/, s2/ ..., `<id>.wav` each."""
    names = [f"s{i + 1}" for i in range(n_src)]
    return Mixture(id, folder / "mix" / f"{id}.wav", tuple(folder / name / f"{id}.wav" for name in names), length)


class Example(NamedTuple):
    """A mixture `(T,)` and its sources `(n_src, T)`, float32, and its id."""

    mixture: np.ndarray
    sources: np.ndarray
    id: str


def manifest_of_tree(split_dir: Path, mixture: str = "mix") -> list[Mixture]:
    """The mixtures of a split folder (mix/ s1/ s2/ ...), joined by file stem and sorted by it.

    Args:
        mixture: the folder of the mixtures: mix in wsj0-mix; mix_clean, mix_both (with noise/) or mix_single (one source and
            noise/) in WHAM! and LibriMix.

    Raises:
        SepmlError: a folder is absent, a file is missing from one of them, or a header cannot be read.
    """
    mixtures, faults = scan_tree(split_dir, mixture)
    if faults:
        raise SepmlError(faults[0] + more_faults(len(faults) - 1))
    return [replace(m, length=info(m.mixture).frames) for m in mixtures]


def scan_tree(split_dir: Path, mixture: str = "mix") -> tuple[list[Mixture], list[str]]:
    """The complete mixtures of a split folder, with length 0 as no file is opened, and a text for each other file.

    Raises:
        SepmlError: a folder is absent, or the folders hold no audio.
    """
    split_dir = Path(split_dir)
    if not split_dir.is_dir():
        raise SepmlError(f"{split_dir}: no such folder")
    found = {int(f.name[1:]) for f in split_dir.iterdir() if re.fullmatch(r"s[1-9]\d*", f.name) and f.is_dir()}
    least = ["s1"] if mixture == "mix_single" else ["s1", "s2"]
    names = [mixture, *(least if len(least) == 1 else (f"s{i}" for i in range(1, max(found, default=0) + 1)))]
    noise = ["noise"] if mixture in NOISY else []
    absent = [name for name in dict.fromkeys([*names, *least, *noise]) if not (split_dir / name).is_dir()]
    expected = " ".join(f"{name}/" for name in [mixture, *least, *noise])
    layout = "wsj0-mix" if mixture == "mix" else "WHAM! or LibriMix"
    if absent:
        raise SepmlError(f"{split_dir}: has no {absent[0]}/; expected the folders {expected} of a {layout} split")
    faults: list[str] = []
    files = [stems(split_dir / name, faults) for name in [*names, *noise]]
    if not any(files):
        raise SepmlError(f"{split_dir}: {expected} hold no {' or '.join(AUDIO_SUFFIXES)} files")
    mixtures: list[Mixture] = []
    for stem in sorted(set().union(*files)):
        lacking = [f"{name}/" for name, there in zip([*names, *noise], files, strict=True) if stem not in there]
        if lacking:
            one = next(there[stem] for there in files if stem in there)
            faults.append(f"{one}: has no file of the same name in {' '.join(lacking)}")
        else:
            first, *sources = (there[stem] for there in files)
            mixtures.append(Mixture(stem, first, tuple(sources[: len(names) - 1]), 0, sources[-1] if noise else None))
    return mixtures, faults


def stems(folder: Path, faults: list[str]) -> dict[str, Path]:
    """The audio files of a folder by their stem; other files are ignored, two of one stem are a fault."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for file in sorted(folder.iterdir()):
        # Names that begin with a dot are temporary files of a killed run.
        if file.suffix.lower() not in AUDIO_SUFFIXES or file.name.startswith("."):
            continue
        if len(os.fsencode(file.stem)) > LONGEST_ID:
            faults.append(f"{file}: too long a name to make those of estimates from, at most {LONGEST_ID} bytes before the dot")
        if file.stem in files:
            faults.append(f"{file}: duplicate id, {files[file.stem].name} exists beside it")
        else:
            files[file.stem] = file
    return files


def more_faults(count: int) -> str:
    """The end of a message that names the first of several faults."""
    return f" (and {count} more fault{'s' if count > 1 else ''}; `sepml check` lists them all)" if count else ""


def with_noise(split_dir: Path, mixtures: list[Mixture], faults: list[str]) -> list[Mixture]:
    """The mixtures of a folder of mix/ s1/ s2/, with the files of noise/ beside these if there is such a folder."""
    if not (split_dir / "noise").is_dir():
        return mixtures
    noise = stems(split_dir / "noise", faults)
    faults += [f"{m.mixture}: has no file of the same name in noise/" for m in mixtures if m.id not in noise]
    return [replace(mixture, noise=noise.get(mixture.id)) for mixture in mixtures]


def is_mixture_folder(folder: Path) -> bool:
    """Whether a folder is one mixture: it contains s1.wav, and mixture.wav or mix.wav."""
    names = {file.stem for file in folder.iterdir() if file.is_file()} if folder.is_dir() else set()
    return "s1" in names and any(name in names for name in _MIXTURES)


def splits_of_folders(tree: Path) -> dict[str, list[Path]]:
    """The folders of mixtures by split: those directly in the tree are one split with its name; or those one level below.

    Empty if the tree has no such folders.
    """
    below = sorted(folder for folder in tree.iterdir() if folder.is_dir() and folder.name[0] != ".") if tree.is_dir() else []
    if own := [folder for folder in below if is_mixture_folder(folder)]:
        return {tree.resolve().name: own}
    splits = {split.name: [folder for folder in sorted(split.iterdir()) if is_mixture_folder(folder)] for split in below}
    return {name: folders for name, folders in splits.items() if folders}


def mixtures_of_folders(folders: list[Path], faults: list[str]) -> list[Mixture]:
    """The mixtures of one split, whose ids are the names of their folders.

    Args:
        faults: receives a text for each folder that lacks a file which others have, or has two files of one name.

    Raises:
        SepmlError: the header of a mixture cannot be read.
    """
    found = {folder: stems(folder, faults) for folder in folders}
    n_src = max(max(_sources(files)) for files in found.values())
    noisy = any(_NOISE in files for files in found.values())
    mixtures = []
    for folder, files in found.items():
        needed = [*(f"s{n}" for n in range(1, n_src + 1)), *([_NOISE] if noisy else [])]
        if absent := [name for name in needed if name not in files]:
            faults.append(f"{folder}: has no {absent[0]}.wav, which other folders of mixtures have")
            continue
        both = [name for name in _MIXTURES if name in files]
        if len(both) > 1:
            faults.append(f"{folder}: has both mixture.wav and mix.wav, expected one")
            continue
        sources = tuple(files[f"s{n}"] for n in range(1, n_src + 1))
        mixture = files[both[0]]
        mixtures.append(Mixture(folder.name, mixture, sources, info(mixture).frames, files.get(_NOISE)))
    return mixtures


def _sources(files: Mapping[str, Path]) -> list[int]:
    """The numbers of the existing sources; [2] if there are none."""
    return [int(match[1]) for name in files if (match := _SOURCE.fullmatch(name))] or [2]


def find_moved(files: Sequence[Path], moved_to: Path | None) -> list[Path]:
    """The current paths of files that may have been moved.

    Existing files and relative paths are unchanged. For other paths, the longest last part that exists below `moved_to` is
    used: `/old/corpus/s1/a.wav` is searched as `old/corpus/s1/a.wav`, `corpus/s1/a.wav`, `s1/a.wav`. Parts after the folder
    that all files share are always kept, so that `s1/a.wav` and `s2/a.wav` remain different files.

    Args:
        files: that belong together, such as a mixture and its sources.
        moved_to: the folder to which they were moved; None returns all paths unchanged.

    Returns:
        as many paths; those that are not found are unchanged.
    """
    if moved_to is None or all(os.path.isfile(file) for file in files):
        return [*files]
    gone = {file for file in files if file.is_absolute() and not os.path.isfile(file)}
    if not gone:
        return [*files]
    shared = len(Path(os.path.commonpath([file.parent for file in gone])).parts)
    # If the files share only the root, they were in several folders, and the last folder is kept.
    found = {file: _file_below(moved_to, file.parts, shared if shared > 1 else len(file.parts) - 2) for file in gone}
    places = [place for place in found.values() if place is not None]
    if len(set(places)) < len(places):
        return [*files]
    return [found.get(file) or file for file in files]


def _file_below(root: Path, parts: tuple[str, ...], most: int) -> Path | None:
    """The longest last part of a path that is a file below `root`; at most `most` parts are removed."""
    candidates = (root.joinpath(*parts[cut:]) for cut in range(1, most + 1))
    return next((place for place in candidates if os.path.isfile(place)), None)
