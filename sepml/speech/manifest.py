"""Manifests: which mixture belongs with which sources, as LibriMix's form of CSV or as a wsj0-mix folder tree."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sepml.errors import SepmlError, did_you_mean
from sepml.files import write_csv

AUDIO_SUFFIXES = (".wav", ".flac")
# The folders of mixtures in the trees of WHAM! and LibriMix.
TYPES = ("mix_clean", "mix_both", "mix_single")
NOISY = ("mix_both", "mix_single")
_SOURCE_COLUMN = re.compile(r"source_([1-9]\d*)_path")


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


def read_manifest(path: Path) -> list[Mixture]:
    """The mixtures of a manifest, in its order.

    The columns are mixture_ID, mixture_path, source_1_path, source_2_path (and on), length, in any order, and for
    noisy mixtures noise_path, with which one source is enough; others are passed over. Paths are absolute or relative to
    the folder of the manifest. The files of noise are not looked for, as training and scoring do without them.

    Raises:
        SepmlError: the manifest or a file it names is missing, a column is missing, a field is empty or malformed, an
            id stands twice, or there are no mixtures. The message names the file and the line.
    """
    path = Path(path)
    rows, faults = scan_manifest(path)
    for line, mixture in rows.items():
        for file in (mixture.mixture, *mixture.sources):
            if not os.path.isfile(file):
                where = f"paths are absolute or relative to {path.parent.absolute()}"
                faults.append(f"{path}:{line}: id '{mixture.id}': there is no file {file} ({where})")
    if faults:
        raise SepmlError(faults[0] + _more(len(faults) - 1))
    return list(rows.values())


def scan_manifest(path: Path) -> tuple[dict[int, Mixture], list[str]]:
    """The sound rows of a manifest by their line, and a text for each fault in the others; no audio file is looked for.

    Raises:
        SepmlError: there is no table to read: the file is missing, not text, has no rows, or a column is missing.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            numbered = [(rows.line_num, row) for row in rows if row]
    except FileNotFoundError as error:
        raise SepmlError(f"{path}: no such manifest") from error
    except OSError as error:
        raise SepmlError(f"{path}: cannot be read: {error.strerror}; expected a manifest in CSV form") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SepmlError(f"{path}: is not a CSV text file: {error}") from error
    columns = _columns(path, header)
    if not numbered:
        raise SepmlError(f"{path}: has no mixtures, only a header")
    found: dict[int, Mixture] = {}
    faults: list[str] = []
    first: dict[str, int] = {}
    for line, row in numbered:
        mixture = _mixture(path.parent, row, columns, len(header))
        if isinstance(mixture, str):
            faults.append(f"{path}:{line}: {mixture}")
        elif mixture.id in first:
            faults.append(f"{path}:{line}: duplicate id '{mixture.id}', it stands in line {first[mixture.id]} already")
        else:
            first[mixture.id] = line
            found[line] = mixture
    return found, faults


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
    from sepml.speech.audio import info

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


def _columns(path: Path, header: list[str]) -> list[int]:
    """Where mixture_ID, mixture_path, the sources in their order, noise or -1, and length stand in a row."""
    doubled = [name for name, times in Counter(header).items() if times > 1]
    if doubled:
        raise SepmlError(f"{path}:1: the column {doubled[0]} stands twice")
    # Of LibriMix's own tables, some of those of clean mixtures name the noise that the noisy ones hold.
    noisy = "noise_path" in header and "mix_clean" not in path.name
    least = 1 if noisy else 2
    n_src = max([least, *(int(match[1]) for name in header if (match := _SOURCE_COLUMN.fullmatch(name)))])
    if n_src > max(2, len(header)):
        raise SepmlError(f"{path}:1: has a column source_{n_src}_path but not all of those before it")
    names = ["mixture_ID", "mixture_path", *(f"source_{i + 1}_path" for i in range(n_src)), "length"]
    for name in names:
        if name not in header:
            shown = ",".join(header)[:200] or "nothing"
            raise SepmlError(f"{path}:1: no column '{name}'{did_you_mean(name, header)}; the header is: {shown}")
    columns = [header.index(name) for name in names]
    return [*columns[:-1], header.index("noise_path") if noisy else -1, columns[-1]]


def _mixture(folder: Path, row: list[str], columns: Iterable[int], width: int) -> Mixture | str:
    """The mixture of a row, or what is wrong with it."""
    if len(row) != width:
        return f"{len(row)} fields, expected {width} as in the header"
    id, mixture, *sources, noise, length = (row[column] if column >= 0 else "" for column in columns)
    if not id or not mixture or not all(sources):
        return f"id '{id}': an empty field among mixture_ID, mixture_path and the source paths"
    if "/" in id or "\0" in id or id in (".", ".."):
        return f"id '{id}' cannot be part of a file name"
    if not (length.isascii() and length.isdigit()) or int(length) == 0:
        return f"id '{id}': length is '{length}', expected a number of samples above 0"
    files = tuple(folder / source for source in sources)
    return Mixture(id, folder / mixture, files, int(length), folder / noise if noise else None)


def stems(folder: Path, faults: list[str]) -> dict[str, Path]:
    """The audio files of a folder by their stem; other files are passed over, two of one stem are a fault."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for file in sorted(folder.iterdir()):
        # Names that begin with a dot are temporary files of a run that was killed.
        if file.suffix.lower() not in AUDIO_SUFFIXES or file.name.startswith("."):
            continue
        if file.stem in files:
            faults.append(f"{file}: duplicate id, {files[file.stem].name} stands beside it")
        else:
            files[file.stem] = file
    return files


def _more(count: int) -> str:
    return f" (and {count} more fault{'s' if count > 1 else ''}; `sepml check` lists them all)" if count else ""
