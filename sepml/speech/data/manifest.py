"""CSV tables: manifests, in LibriMix's format, of mixtures and their sources; and tables of single utterances."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError, did_you_mean
from sepml.speech.data.mixtures import Mixture, find_moved, more_faults
from sepml.system.csv_files import Places, all_numbers, blocks, read_rows
from sepml.system.files import LONGEST_ID, write_csv
from sepml.system.tables import Table

# Of longer manifests the files of this many mixtures are looked for at once.
LOOKED_FOR = 20_000
_MOST_DIGITS = 6
_SOURCE_COLUMN = re.compile(r"source_([1-9]\d*)_path")


class Manifest(Table[Mixture]):
    """The mixtures of a manifest, read from the file on demand; a slice is also a manifest.

    Attributes:
        n_src: sources of each mixture, of which some may be silent.
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
            SepmlError: a file is absent, which is checked here for long manifests only.
        """
        id, mixture, *sources, noise, length = (fields[column] if column >= 0 else "" for column in self.columns)
        sounding = [file for file in sources if file]
        named = [self.path.parent / file for file in (mixture, *sounding, *([noise] if noise else []))]
        files = find_moved(named, self.moved_to)
        found = Mixture(id, files[0], tuple(files[1 : len(sounding) + 1]), int(length), files[-1] if noise else None)
        if self.unseen and (faults := self.absent(fields, line)):
            raise SepmlError(faults[0])
        return found

    def absent(self, fields: list[str], line: int) -> list[str]:
        """A text for each file of a row, except its noise, that does not exist."""
        folder = os.fspath(self.path.parent)
        files = [os.path.join(folder, fields[column]) for column in self.columns[1:-2] if fields[column]]
        if all(map(os.path.isfile, files)):
            return []
        absent = [file for file in find_moved([*map(Path, files)], self.moved_to) if not os.path.isfile(file)]
        below = f", nor where it would be in {self.moved_to}" if self.moved_to else ""
        where = f"paths are absolute or relative to {self.path.parent.absolute()}"
        start = f"{self.path}:{line}: id '{fields[self.columns[0]]}'"
        return [f"{start}: there is no file {file}{below} ({where})" for file in absent]


def read_manifest(path: Path, moved_to: Path | None = None) -> Manifest:
    """The mixtures of a manifest, in its order.

    The columns are mixture_ID, mixture_path, source_1_path, source_2_path and so on, and length, in any order, and noise_path
    for noisy mixtures, which may have one source only; other columns are ignored. Where the last sources of a mixture are empty
    fields, it has fewer talkers than others: these sources are silent. Paths are absolute or relative to the folder
    of the manifest. The existence of the files is checked, except for noise, which training and scoring do not need. In a
    manifest of more than 20,000 mixtures, it is checked for 20,000 of them here, and for the others when they are read.

    A mixture takes 24 bytes of memory.

    Args:
        moved_to: the folder to which files were moved that the manifest names by absolute paths, see `find_moved`.

    Raises:
        SepmlError: the manifest or a file it names is missing, a column is missing, a field is empty, malformed or on
            several lines, an id occurs twice, or there are no mixtures. The message names the file and the line.
    """
    manifest, faults = _open(Path(path), moved_to)
    texts = [faults[line] for line in sorted(faults)]
    few = len(manifest) <= LOOKED_FOR
    for index in range(len(manifest)) if few else np.linspace(0, len(manifest) - 1, LOOKED_FOR).astype(int):
        texts += manifest.absent(manifest.fields(index), int(manifest.lines[index]))
    if texts:
        raise SepmlError(texts[0] + more_faults(len(texts) - 1))
    manifest.unseen = not few
    return manifest


def scan_manifest(path: Path, moved_to: Path | None = None) -> tuple[dict[int, Mixture], list[str]]:
    """The valid rows of a manifest by line, and a text for each fault in the others; audio files need not exist.

    Args:
        moved_to: see `read_manifest`.

    Raises:
        SepmlError: the table cannot be read: the file is missing, is not text or has no rows, a column is missing, or a field
            spans several lines.
    """
    manifest, faults = _open(Path(path), moved_to)
    return dict(zip(manifest.lines.tolist(), manifest, strict=True)), [faults[line] for line in sorted(faults)]


def _open(path: Path, moved_to: Path | None = None) -> tuple[Manifest, dict[int, str]]:
    """The valid rows of a manifest, and the faults of the others by line; whether the audio files exist is not checked."""
    columns: list[int] = []
    faults: dict[int, str] = {}
    parts: list[Places] = []
    for block in blocks(path, "manifest"):
        if not columns and block.rows:
            columns, width = _columns_of(path, block.rows[0]), len(block.rows[0])
            block = block.part(slice(1, None))
        if _fault(block.rows, columns, width):
            texts = [_fault([row], columns, width) for row in block.rows]
            faults |= {line: f"{path}:{line}: {text}" for line, text in zip(block.lines.tolist(), texts, strict=True) if text}
            block = block.part([index for index, text in enumerate(texts) if not text])
        parts.append(block.places(columns[0], columns[-1]))
    if not columns:
        _columns_of(path, [])
    places = Places(*map(np.concatenate, zip(*parts, strict=True)))
    if not len(places.lines) and not faults:
        raise SepmlError(f"{path}: has no mixtures, only a header")
    del parts
    manifest = Manifest(path, places, columns, moved_to)
    doubles = manifest.repeated(places.hashes, columns[0])
    for index, first in doubles:
        line, earlier = places.lines[[index, first]].tolist()
        id = manifest.fields(index)[columns[0]]
        faults[line] = f"{path}:{line}: duplicate id '{id}', which is already in line {earlier}"
    if doubles:
        manifest = manifest.part(np.setdiff1d(np.arange(len(manifest)), [index for index, _ in doubles]))
    return manifest, faults


def _columns_of(path: Path, header: list[str]) -> list[int]:
    """The indices of the columns mixture_ID, mixture_path, sources in their order, noise (or -1), and length."""
    doubled = [name for name, times in Counter(header).items() if times > 1]
    if doubled:
        raise SepmlError(f"{path}:1: the column {doubled[0]} occurs twice")
    # Some of LibriMix's own tables of clean mixtures name the noise of the noisy ones.
    noisy = "noise_path" in header and "mix_clean" not in path.name
    least = 1 if noisy else 2
    n_src = max([least, *(int(match[1][:_MOST_DIGITS]) for name in header if (match := _SOURCE_COLUMN.fullmatch(name)))])
    if n_src > max(2, len(header)):
        raise SepmlError(f"{path}:1: has a column source_{n_src}_path but not all of those before it")
    names = ["mixture_ID", "mixture_path", *(f"source_{i + 1}_path" for i in range(n_src)), "length"]
    for name in names:
        if name not in header:
            shown = ",".join(header)[:200] or "nothing"
            raise SepmlError(f"{path}:1: no column '{name}'{did_you_mean(name, header)}; the header is: {shown}")
    places = [header.index(name) for name in names]
    return [*places[:-1], header.index("noise_path") if noisy else -1, places[-1]]


def _fault(rows: list[list[str]], columns: list[int], width: int) -> str | None:
    """The fault of a row, or None. Several rows can be checked at once, which is faster: None if all are valid.

    Returns:
        a text about the first row; for the faults of several rows, call it for each row.
    """
    if not rows:
        return None
    if set(map(len, rows)) != {width}:
        return f"{len(rows[0])} fields, expected {width} as in the header"
    fields = list(zip(*rows, strict=True))
    ids, lengths = fields[columns[0]], fields[columns[-1]]
    names, id = "".join(ids), ids[0]
    if not all(all(fields[column]) for column in columns[:3]):
        return f"id '{id}': an empty field among mixture_ID, mixture_path and source_1_path"
    for earlier, later in pairwise(columns[2:-2]):
        if not all(before or not after for before, after in zip(fields[earlier], fields[later], strict=True)):
            return f"id '{id}': an empty field between source paths; empty ones come last, their sources are silent"
    if "/" in names or "\0" in names or {".", ".."}.intersection(ids):
        return f"id '{id}' cannot be part of a file name"
    # A character has 1 to 4 bytes.
    if max(map(len, ids)) > LONGEST_ID // 4 and any(len(id.encode()) > LONGEST_ID for id in ids):
        return f"id '{id[:40]}...' is too long for the names of files: {len(id.encode())} bytes, at most {LONGEST_ID}"
    if not (all(lengths) and all_numbers(lengths) and all(map(int, lengths))):
        return f"id '{id}': length is '{lengths[0]}', expected a number of samples above 0"
    return None


def write_manifest(path: Path, mixtures: Sequence[Mixture]) -> None:
    """Write a manifest atomically; paths below its folder are relative, so that both may be moved together.

    Mixtures of fewer sources than others have empty fields for the rest, see `read_manifest`.

    Raises:
        SepmlError: there are no mixtures, an id occurs twice, or the disk is full.
    """
    path = Path(path)
    if not mixtures:
        raise SepmlError(f"{path}: not written, as there are no mixtures")
    n_src = max(len(mixture.sources) for mixture in mixtures)
    ids: set[str] = set()
    for mixture in mixtures:
        if mixture.id in ids:
            raise SepmlError(f"{path}: not written: id '{mixture.id}' occurs twice")
        ids.add(mixture.id)
    folder = path.parent.absolute()

    def named(file: Path) -> str:
        absolute = file.absolute()
        return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)

    # An empty column would be the name of a file to other readers.
    noisy = any(mixture.noise for mixture in mixtures)
    sources = [f"source_{i + 1}_path" for i in range(n_src)]
    header = ["mixture_ID", "mixture_path", *sources, *(["noise_path"] if noisy else []), "length"]
    rows = (
        [
            *(m.id, named(m.mixture), *map(named, m.sources), *[""] * (n_src - len(m.sources))),
            *([named(m.noise) if m.noise else ""] if noisy else []),
            m.length,
        ]
        for m in mixtures
    )
    write_csv(path, header, rows)


def utterances_by_speaker(table: Path, split: str, tiers: str = "", moved_to: Path | None = None) -> dict[str, list[Path]]:
    """The files of each speaker in a split of a table of utterances, also if they were moved, see `find_moved`.

    Args:
        tiers: recording qualities to read, such as AB; empty is all.

    Raises:
        SepmlError: the table is missing or malformed.
    """
    if not os.path.exists(table):
        raise SepmlError(f"{table}: no such utterance table; `sepml prepare` writes one")
    columns = ("file", "speaker", "split", *(["tier"] if tiers else []))
    rows = [row for _, row in read_rows(table, "utterance table", columns) if row["split"] == split]
    rows = [row for row in rows if not tiers or row["tier"] in [*tiers]]
    by_speaker: dict[str, list[Path]] = {}
    for row, file in zip(rows, find_moved([table.parent / row["file"] for row in rows], moved_to), strict=True):
        by_speaker.setdefault(row["speaker"], []).append(file)
    return by_speaker
