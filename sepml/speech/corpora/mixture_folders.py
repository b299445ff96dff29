"""Trees with a folder for each mixture, `mix_1/{mixture,s1,s2}.wav`, in which many data sets and tools keep theirs."""

import re
from collections.abc import Mapping
from pathlib import Path

from sepml.speech.audio.files import info
from sepml.speech.data.manifest import Mixture, stems

MIXTURES = ("mixture", "mix")
_SOURCE = re.compile(r"s([1-9]\d*)")
_NOISE = "noise"


def is_mixture_folder(folder: Path) -> bool:
    """Whether a folder is one mixture: it holds mixture.wav or mix.wav beside s1.wav."""
    names = {file.stem for file in folder.iterdir() if file.is_file()} if folder.is_dir() else set()
    return "s1" in names and any(name in names for name in MIXTURES)


def splits_of_folders(tree: Path) -> dict[str, list[Path]]:
    """The folders of mixtures by split: those directly in the tree are one split, called as it is; or those one folder below.

    Empty where the tree has no such folders.
    """
    below = sorted(folder for folder in tree.iterdir() if folder.is_dir() and folder.name[0] != ".") if tree.is_dir() else []
    if own := [folder for folder in below if is_mixture_folder(folder)]:
        return {tree.resolve().name: own}
    splits = {split.name: [folder for folder in sorted(split.iterdir()) if is_mixture_folder(folder)] for split in below}
    return {name: folders for name, folders in splits.items() if folders}


def mixtures_of_folders(folders: list[Path], faults: list[str]) -> list[Mixture]:
    """The mixtures of one split, called as their folders.

    Args:
        faults: takes a text for each folder that lacks a file which others have, or holds two of one name.

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
        both = [name for name in MIXTURES if name in files]
        if len(both) > 1:
            faults.append(f"{folder}: has both mixture.wav and mix.wav, expected one")
            continue
        sources = tuple(files[f"s{n}"] for n in range(1, n_src + 1))
        mixture = files[both[0]]
        mixtures.append(Mixture(folder.name, mixture, sources, info(mixture).frames, files.get(_NOISE)))
    return mixtures


def _sources(files: Mapping[str, Path]) -> list[int]:
    """The numbers of the sources that are there."""
    return [int(match[1]) for name in files if (match := _SOURCE.fullmatch(name))] or [2]
