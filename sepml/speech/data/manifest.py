"""Manifests: which mixture belongs with which sources, as LibriMix's form of CSV or as a wsj0-mix folder tree."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.data.moved import find_moved
from sepml.speech.data.rows import all_sound, columns_of, fault
from sepml.system.csv_files import Places, blocks
from sepml.system.files import write_csv
from sepml.system.limits import LONGEST_ID
from sepml.system.tables import Table

AUDIO_SUFFIXES = (".wav", ".flac")
# The folders of mixtures in the trees of WHAM! and LibriMix.
TYPES = ("mix_clean", "mix_both", "mix_single")
NOISY = ("mix_both", "mix_single")
# Of longer manifests the files of this many mixtures are looked for at once.
LOOKED_FOR = 20_000


@dataclass(frozen=True)
class Mixture:
    """One mixture and its sources.

    Attributes:
        id: unique within a manifest; the stem of the files in a wsj0-mix tree.
        mixture: the audio file of the mixture.
        sources: the audio files of the sources, s1 first.
        length: samples.
        noise: the audio file of the noise; without one the mixture is the sum of its sources alone.
    """

    id: str
    mixture: Path
    sources: tuple[Path, ...]
    length: int
    noise: Path | None = None


class Manifest(Table[Mixture]):
    """The mixtures of a manifest, each read from the file when it is asked for; a slice is a manifest, too.

    Attributes:
        n_src: sources of each mixture.
        lengths: samples of each mixture, `(len(self),)` int64.
        moved_to: see `read_manifest`.
    """

    def __init__(self, path: Path, places: Places, columns: list[int], moved_to: Path | None = None) -> None:
        super().__init__(path, places)
        self.columns, self.n_src, self.moved_to = columns, len(columns) - 4, moved_to
        self.unseen = False

    def parse(self, fields: list[str], line: int) -> Mixture:
        """The mixture of a row.

        Raises:
            SepmlError: the manifest is too long for its files to have been looked for, and one of them is absent.
        """
        id, mixture, *sources, noise, length = (fields[column] if column >= 0 else "" for column in self.columns)
        named = [self.path.parent / file for file in (mixture, *sources, *([noise] if noise else []))]
        files = find_moved(named, self.moved_to)
        found = Mixture(id, files[0], tuple(files[1 : self.n_src + 1]), int(length), files[-1] if noise else None)
        if self.unseen and (faults := self.absent(fields, line)):
            raise SepmlError(faults[0])
        return found

    def absent(self, fields: list[str], line: int) -> list[str]:
        """A text for each file of a row, but for its noise, that is not there."""
        folder = os.fspath(self.path.parent)
        files = [os.path.join(folder, fields[column]) for column in self.columns[1:-2]]
        if all(map(os.path.isfile, files)):
            return []
        absent = [file for file in find_moved([*map(Path, files)], self.moved_to) if not os.path.isfile(file)]
        below = f", nor where it would be in {self.moved_to}" if self.moved_to else ""
        where = f"paths are absolute or relative to {self.path.parent.absolute()}"
        start = f"{self.path}:{line}: id '{fields[self.columns[0]]}'"
        return [f"{start}: there is no file {file}{below} ({where})" for file in absent]


def read_manifest(path: Path, moved_to: Path | None = None) -> Manifest:
    """The mixtures of a manifest, in its order.

    The columns are mixture_ID, mixture_path, source_1_path, source_2_path (and on), length, in any order, and for
    noisy mixtures noise_path, with which one source is enough; others are passed over. Paths are absolute or relative to
    the folder of the manifest. The files of noise are not looked for, as training and scoring do without them. The
    others are, of 20,000 mixtures spread over the manifest where it has more; those of the remaining mixtures when
    these are asked for.

    In memory a mixture takes 24 bytes.

    Args:
        moved_to: where the files are that the manifest names by absolute paths which are gone, see `find_moved`.

    Raises:
        SepmlError: the manifest or a file it names is missing, a column is missing, a field is empty, malformed or on
            several lines, an id stands twice, or there are no mixtures. The message names the file and the line.
    """
    manifest, faults = _open(Path(path), moved_to)
    texts = [faults[line] for line in sorted(faults)]
    few = len(manifest) <= LOOKED_FOR
    for index in range(len(manifest)) if few else np.linspace(0, len(manifest) - 1, LOOKED_FOR).astype(int):
        texts += manifest.absent(manifest.fields(index), int(manifest.lines[index]))
    if texts:
        raise SepmlError(texts[0] + _more(len(texts) - 1))
    manifest.unseen = not few
    return manifest


def scan_manifest(path: Path, moved_to: Path | None = None) -> tuple[dict[int, Mixture], list[str]]:
    """The sound rows of a manifest by their line, and a text for each fault in the others; no audio file is looked for.

    Args:
        moved_to: see `read_manifest`.

    Raises:
        SepmlError: there is no table to read: the file is missing, not text, has no rows, a column is missing or a field
            goes on over several lines.
    """
    manifest, faults = _open(Path(path), moved_to)
    return dict(zip(manifest.lines.tolist(), manifest, strict=True)), [faults[line] for line in sorted(faults)]


def _open(path: Path, moved_to: Path | None = None) -> tuple[Manifest, dict[int, str]]:
    """The sound rows of a manifest, and the faults of the others by line; the files are not looked for."""
    columns: list[int] = []
    faults: dict[int, str] = {}
    parts: list[Places] = []
    for block in blocks(path, "manifest"):
        if not columns and block.rows:
            columns, width = columns_of(path, block.rows[0]), len(block.rows[0])
            block = block.part(slice(1, None))
        if not all_sound(block.rows, columns, width):
            texts = [fault(row, columns, width) for row in block.rows]
            faults |= {line: f"{path}:{line}: {text}" for line, text in zip(block.lines.tolist(), texts, strict=True) if text}
            block = block.part([index for index, text in enumerate(texts) if not text])
        parts.append(block.places(columns[0], columns[-1]))
    if not columns:
        columns_of(path, [])
    places = Places(*map(np.concatenate, zip(*parts, strict=True)))
    if not len(places.lines) and not faults:
        raise SepmlError(f"{path}: has no mixtures, only a header")
    del parts
    manifest = Manifest(path, places, columns, moved_to)
    doubles = manifest.repeated(places.hashes, columns[0])
    for index, first in doubles:
        line, earlier = places.lines[[index, first]].tolist()
        id = manifest.fields(index)[columns[0]]
        faults[line] = f"{path}:{line}: duplicate id '{id}', it stands in line {earlier} already"
    if doubles:
        manifest = manifest.part(np.setdiff1d(np.arange(len(manifest)), [index for index, _ in doubles]))
    return manifest, faults


def write_manifest(path: Path, mixtures: Sequence[Mixture]) -> None:
    """Write a manifest, whole or not at all; files below its folder are named relative to it, so both may move.

    Raises:
        SepmlError: there are no mixtures, they differ in their number of sources, an id stands twice, or the disk is
            full.
    """
    path = Path(path)
    if not mixtures:
        raise SepmlError(f"{path}: not written, as there are no mixtures")
    n_src = len(mixtures[0].sources)
    ids: set[str] = set()
    for mixture in mixtures:
        if len(mixture.sources) != n_src:
            raise SepmlError(
                f"{path}: not written: '{mixture.id}' has {len(mixture.sources)} sources, '{mixtures[0].id}' {n_src}"
            )
        if mixture.id in ids:
            raise SepmlError(f"{path}: not written: id '{mixture.id}' stands twice")
        ids.add(mixture.id)
    folder = path.parent.absolute()

    def named(file: Path) -> str:
        absolute = file.absolute()
        return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)

    # A column that stays empty would make other readers look for a file of that name.
    noisy = any(mixture.noise for mixture in mixtures)
    sources = [f"source_{i + 1}_path" for i in range(n_src)]
    header = ["mixture_ID", "mixture_path", *sources, *(["noise_path"] if noisy else []), "length"]
    rows = (
        [m.id, named(m.mixture), *map(named, m.sources), *([named(m.noise) if m.noise else ""] if noisy else []), m.length]
        for m in mixtures
    )
    write_csv(path, header, rows)


def manifest_of_tree(split_dir: Path, mixture: str = "mix") -> list[Mixture]:
    """The mixtures of a split folder (mix/ s1/ s2/ ...), joined by file stem and sorted by it.

    Args:
        mixture: the folder of the mixtures: mix as in wsj0-mix; in the trees of WHAM! and LibriMix mix_clean, mix_both
            (with the files of noise/) or mix_single (one source and noise/).

    Raises:
        SepmlError: a folder is absent, a file is missing from one of them, or a header cannot be read.
    """
    from sepml.speech.audio.files import info

    mixtures, faults = scan_tree(split_dir, mixture)
    if faults:
        raise SepmlError(faults[0] + _more(len(faults) - 1))
    return [replace(m, length=info(m.mixture).frames) for m in mixtures]


def scan_tree(split_dir: Path, mixture: str = "mix") -> tuple[list[Mixture], list[str]]:
    """The complete mixtures of a split folder, of length 0 as no file is opened, and a text for each other file.

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
    """The audio files of a folder by their stem; other files are passed over, two of one stem are a fault."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for file in sorted(folder.iterdir()):
        # Names that begin with a dot are temporary files of a run that was killed.
        if file.suffix.lower() not in AUDIO_SUFFIXES or file.name.startswith("."):
            continue
        if len(os.fsencode(file.stem)) > LONGEST_ID:
            faults.append(f"{file}: too long a name to make those of estimates from, at most {LONGEST_ID} bytes before the dot")
        if file.stem in files:
            faults.append(f"{file}: duplicate id, {files[file.stem].name} stands beside it")
        else:
            files[file.stem] = file
    return files


def _more(count: int) -> str:
    return f" (and {count} more fault{'s' if count > 1 else ''}; `sepml check` lists them all)" if count else ""
