"""The published metadata of LibriMix: which utterances and noise make a mixture, and at which gains."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sepml.errors import SepmlError
from sepml.speech.mixing.mixlist import require_inside, require_name
from sepml.system.csv_files import read_rows

_SHOWN = 80


@dataclass(frozen=True)
class Recipe:
    """A row of the published metadata.

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


def librimix_split(table: Path) -> str:
    """The split that LibriMix makes of a file of metadata.

    >>> librimix_split(Path("libri2mix_train-clean-100.csv")), librimix_split(Path("libri3mix_dev-clean.csv"))
    ('train-100', 'dev')
    """
    return re.sub(r"^libri\d+mix_", "", table.name.removesuffix(".csv")).replace("-clean", "")


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
                raise SepmlError("stands twice")
        except SepmlError as error:
            raise SepmlError(f"{table}:{line}: mixture {str(row['mixture_ID'])[:_SHOWN]!r}: {error}") from error
        recipes[recipe.id] = recipe
    return list(recipes.values())


def _recipe(row: Mapping[str, str], names: Sequence[str], where: str) -> Recipe:
    paths, gains = [], []
    for name in names:
        path, gain = row[f"{name}_path"], row[f"{name}_gain"]
        require_inside(path)
        try:
            gains.append(float(gain))
        except ValueError:
            gains.append(math.nan)
        if not math.isfinite(gains[-1]):
            raise SepmlError(f"the gain of {name} is '{gain}', expected a number")
        paths.append(path)
    id = row["mixture_ID"]
    require_name(id and f"{id}.wav")
    return Recipe(id, tuple(paths[:-1]), paths[-1], tuple(gains), where)


def tables_of(metadata: Sequence[Path]) -> list[Path]:
    """The files of metadata among files and folders, one a split; in folders, those named `*_info*` are ignored.

    Raises:
        SepmlError: a folder holds none, or two make one split.
    """
    tables: dict[str, Path] = {}
    for path in map(Path, metadata):
        found = sorted(f for f in path.glob("*.csv") if "info" not in f.name) if path.is_dir() else [path]
        if not found:
            raise SepmlError(f"{path}: holds no metadata, expected libri<n>mix_<split>.csv")
        for table in found:
            if tables.setdefault(librimix_split(table), table) != table:
                raise SepmlError(f"{table}: {tables[librimix_split(table)]} makes the split '{librimix_split(table)}' as well")
    return list(tables.values())
