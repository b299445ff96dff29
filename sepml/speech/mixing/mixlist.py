"""Text formats that describe mixtures: mix lists and tables of active levels (wsj0-mix), and LibriMix's metadata."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sepml.errors import SepmlError
from sepml.system.csv_files import read_rows
from sepml.system.files import LONGEST_NAME, MOST_TEXT_BYTES, decode, read_limited

_LOUDEST_GAIN_DB = 100.0
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SHOWN = 80


@dataclass(frozen=True)
class MixLine:
    """A line of a mix list.

    Attributes:
        id: `<utt1>_<gain1>_<utt2>_<gain2>...`, the gains as the list writes them.
        paths: the utterances, relative to the root of the corpus.
        gains: dB, one an utterance.
        where: the list and the line in it, as `lists/mix_2_spk_tr.txt:17`.
    """

    id: str
    paths: tuple[str, ...]
    gains: tuple[float, ...]
    where: str = ""


@dataclass(frozen=True)
class Recipe:
    """A row of LibriMix's metadata.

    Attributes:
        id: of the mixture.
        sources: utterances, relative to LibriSpeech.
        noise: relative to WHAM!'s noise.
        gains: linear, of the sources and, last, of the noise.
        where: the table and the line in it, as `libri2mix_dev-clean.csv:17`.
    """

    id: str
    sources: tuple[str, ...]
    noise: str
    gains: tuple[float, ...]
    where: str = field(default="", repr=False)


def lists_by_split(lists: Sequence[Path]) -> dict[str, Path]:
    """Mix lists by their splits: their names without `mix_<n>_spk_` and `.txt`.

    Raises:
        SepmlError: two make one split.
    """
    return _by_split(lists, lambda name: re.sub(r"^mix_\d+_spk_", "", name.removesuffix(".txt")))


def metadata_by_split(metadata: Sequence[Path]) -> dict[str, Path]:
    """The files of LibriMix's metadata among files and folders, by the name of the split that LibriMix makes from each.

    That of `libri2mix_train-clean-100.csv` is `train-100`. Files named `*_info*` in folders are ignored.

    Raises:
        SepmlError: a folder holds none, or two make one split.
    """
    tables: list[Path] = []
    for path in map(Path, metadata):
        found = sorted(f for f in path.glob("*.csv") if "info" not in f.name) if path.is_dir() else [path]
        if not found:
            raise SepmlError(f"{path}: holds no metadata, expected libri<n>mix_<split>.csv")
        tables += found
    return _by_split(tables, lambda name: re.sub(r"^libri\d+mix_", "", name.removesuffix(".csv")).replace("-clean", ""))


def read_mix_list(path: Path) -> list[MixLine]:
    """The lines of a mix list, `path gain_dB path gain_dB ...`, with two or more sources, the same number in every line.

    Raises:
        SepmlError: the list is missing, empty or not text; a line is malformed, a path leaves the corpus, a gain is
            not a number, or a mixture occurs twice. The message names the file and the line.
    """
    path = Path(path)
    lines: list[MixLine] = []
    first: dict[str, int] = {}
    for number, fields in _fields(path):
        try:
            line = _parse(fields, f"{path}:{number}")
            if lines and len(line.paths) != len(lines[0].paths):
                raise SepmlError(f"{len(line.paths)} sources, but {len(lines[0].paths)} in the lines before")
            if line.id in first:
                raise SepmlError(f"the mixture {line.id} is already in line {first[line.id]}")
        except SepmlError as error:
            raise SepmlError(f"{path}:{number}: {error}") from error
        first[line.id] = number
        lines.append(line)
    if not lines:
        raise SepmlError(f"{path}: is empty, expected lines such as 'spk1/a.wav 1.25 spk2/b.wav -1.25'")
    return lines


def named_in(lines: Iterable[MixLine]) -> dict[str, str]:
    """The utterances in mix lists, and the list and line where each is named first."""
    named: dict[str, str] = {}
    for line in lines:
        for path in line.paths:
            named.setdefault(path, line.where)
    return named


def read_levels(path: Path) -> dict[str, float]:
    """Active levels (power) by utterance stem, from a table `utterance power` or a folder of such `.txt` tables.

    Raises:
        SepmlError: there is no table, a line is malformed, a level is not above 0, or an utterance has two different levels.
    """
    path = Path(path)
    tables = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    levels: dict[str, float] = {}
    for table in tables:
        for number, fields in _fields(table):
            level = float(fields[1]) if len(fields) == 2 and _NUMBER.fullmatch(fields[1]) else 0.0
            if not 0.0 < level < float("inf"):
                found = " ".join(fields)[:_SHOWN]
                raise SepmlError(f"{table}:{number}: found '{found}', expected an utterance and its level, a power above 0")
            if levels.setdefault(fields[0], level) != level:
                raise SepmlError(f"{table}:{number}: {fields[0]} has the level {fields[1]} here and another one before")
    if not levels:
        raise SepmlError(
            f"{path}: holds no levels, expected a table of lines such as '20va010q 2.57e-04' (or a folder of them)"
        )
    return levels


def read_metadata(table: Path) -> list[Recipe]:
    """The rows of a published `libri<n>mix_<split>.csv`.

    Raises:
        SepmlError: the file is missing or malformed, a gain is not a number, a path leads out of its root, or an id occurs
            twice. The message names the file and the line.
    """
    rows = list(read_rows(table, "table of LibriMix's metadata"))
    header = list(rows[0][1]) if rows else []
    n_src = sum(re.fullmatch(r"source_\d+_path", name) is not None for name in header)
    names = [f"source_{i + 1}" for i in range(max(2, n_src))] + ["noise"]
    missing = [c for c in ("mixture_ID", *(f"{n}_{w}" for n in names for w in ("path", "gain"))) if c not in header]
    if missing or not rows:
        fault = f"no column '{missing[0]}'; the header is: {','.join(header)[:200]}" if rows else "has no mixtures"
        raise SepmlError(f"{table}:1: {fault}")
    recipes: dict[str, Recipe] = {}
    for line, row in rows:
        try:
            recipe = _recipe(row, names, f"{table}:{line}")
            if recipe.id in recipes:
                raise SepmlError("occurs twice")
        except SepmlError as error:
            raise SepmlError(f"{table}:{line}: mixture {str(row['mixture_ID'])[:_SHOWN]!r}: {error}") from error
        recipes[recipe.id] = recipe
    return list(recipes.values())


def require_inside(path: str) -> None:
    """Check that a path from a list or table does not lead out of the corpus.

    Raises:
        SepmlError: it is empty, absolute, has a part `..`, or cannot be the path of a file.
    """
    if not path or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise SepmlError(f"the path '{path}' leads out of the corpus; expected one relative to its root")
    for part in PurePosixPath(path).parts:
        _require_length(part)
    if not path.isprintable():
        raise SepmlError(f"the path {path!r} cannot be that of a file")


def require_name(name: str) -> None:
    """Check that a text can be the name of a new file.

    Raises:
        SepmlError: it is empty, hidden, too long, or holds a slash or a character that is not printed.
    """
    _require_length(name)
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise SepmlError(f"{name!r} cannot be the name of a file")


def _by_split(files: Sequence[Path], split_of: Callable[[str], str]) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for path in map(Path, files):
        split = split_of(path.name)
        if (other := splits.setdefault(split, path)) != path:
            raise SepmlError(f"{path}: makes the split '{split}', as {other} does; expected one file for each split")
    return splits


def _require_length(name: str) -> None:
    if len(name.encode()) > LONGEST_NAME:
        raise SepmlError(f"the name {name[:40]}... is too long for a file: {len(name.encode())} bytes, at most {LONGEST_NAME}")


def _parse(fields: list[str], where: str) -> MixLine:
    paths, gain_texts = tuple(fields[::2]), tuple(fields[1::2])
    if len(fields) % 2 or len(paths) < 2:
        found = " ".join(fields)[:_SHOWN]
        raise SepmlError(f"{len(fields)} fields ('{found}'), expected 'path gain path gain', 2 sources or more")
    for path in paths:
        require_inside(path)
    # `./a.wav` and `a.wav` are one file.
    paths = tuple(str(PurePosixPath(path)) for path in paths)
    if len(set(paths)) < len(paths):
        raise SepmlError(f"an utterance is mixed with itself: {' '.join(fields)[:_SHOWN]}")
    for text in gain_texts:
        if not _NUMBER.fullmatch(text) or abs(float(text)) > _LOUDEST_GAIN_DB:
            raise SepmlError(f"the gain is '{text}', expected a number of dB within +-{_LOUDEST_GAIN_DB:g}")
    id = "_".join(f"{PurePosixPath(path).stem}_{text}" for path, text in zip(paths, gain_texts, strict=True))
    require_name(f"{id}.wav")
    return MixLine(id, paths, tuple(map(float, gain_texts)), where)


def _recipe(row: Mapping[str, str], names: Sequence[str], where: str) -> Recipe:
    paths, gains = [], []
    for name in names:
        path, gain = row[f"{name}_path"], row[f"{name}_gain"].strip()
        require_inside(path)
        if not _NUMBER.fullmatch(gain) or not math.isfinite(float(gain)):
            raise SepmlError(f"the gain of {name} is '{gain}', expected a number")
        paths.append(path)
        gains.append(float(gain))
    id = row["mixture_ID"]
    require_name(id and f"{id}.wav")
    return Recipe(id, tuple(paths[:-1]), paths[-1], tuple(gains), where)


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The numbers of the lines that are not blank, and their fields."""
    if path.is_dir():
        raise SepmlError(f"{path}: is a folder; give the lists in it, such as {path}/mix_*.txt")
    try:
        text = decode(read_limited(path, MOST_TEXT_BYTES), path)
    except FileNotFoundError as error:
        raise SepmlError(f"{path}: no such file") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if fields := line.split():
            yield number, fields
