"""The scores of mixtures, and their table scores.csv, which is written and read here only."""

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sepml.errors import SepmlError
from sepml.system.csv_files import read_rows
from sepml.system.files import write_csv
from sepml.system.parallel import Failure

LARGEST = 1e9
"""No score is larger; sums of numbers near the end of float64's range would overflow."""
_FAULT = "fault: "
_WHAT = "table of `sepml score`"
# Columns of scores.csv that hold no scores.
_NO_SCORES = {"mixture_ID", "permutation", "surplus", "fingerprint", "reason"}
Taken = TypeVar("Taken")
Values = list[float | None]


@dataclass(frozen=True)
class Unscored:
    """A number that does not exist, and why.

    Attributes:
        column: the column of the table, such as `pesq`.
        source: counted from 1.
    """

    mixture_id: str
    column: str
    source: int
    reason: str


@dataclass(frozen=True)
class UtteranceScores:
    """The scores of one mixture.

    Attributes:
        permutation: the estimate (from 1) that stands for each source.
        values: column -> one value a source; None where there is none.
        unscored: why, for each None.
        surplus: estimates (from 1) that stand for no source, as there are more of them than sources.
        fingerprint: of the mixture and its references, see `fingerprint_of_test`; empty where it is not known.
        length_differences: samples by which each estimate is longer than the mixture, negative where it is shorter; empty
            where all are as long.
    """

    mixture_id: str
    permutation: tuple[int, ...]
    values: dict[str, tuple[float | None, ...]]
    unscored: tuple[Unscored, ...]
    surplus: tuple[int, ...] = ()
    fingerprint: str = ""
    length_differences: tuple[int, ...] = ()

    def mean(self, column: str) -> float | None:
        """See `mean_of_sources`."""
        return mean_of_sources(self.values[column])

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "UtteranceScores":
        """The scores that `dataclasses.asdict` and JSON turned into `row`.

        Raises:
            KeyError, TypeError: they are no scores.
        """
        return cls(
            mixture_id=row["mixture_id"],
            permutation=tuple(row["permutation"]),
            values={column: tuple(values) for column, values in row["values"].items()},
            unscored=tuple(Unscored(**item) for item in row["unscored"]),
            surplus=tuple(row["surplus"]),
            fingerprint=row["fingerprint"],
            length_differences=tuple(row["length_differences"]),
        )


@dataclass(frozen=True)
class TestedAgainst:
    """What a mixture was scored against: the fingerprint of it and its references, and the number of these.

    The fingerprint is empty and the number 0 where the table does not contain them.
    """

    fingerprint: str
    n_src: int

    def agrees(self, other: "TestedAgainst") -> bool:
        """Whether nothing shows that the two are of other mixtures or references."""
        pairs = ((self.fingerprint, other.fingerprint), (self.n_src, other.n_src))
        return all(not one or not two or one == two for one, two in pairs)


@dataclass(frozen=True)
class ScoreTable:
    """A scores.csv by its columns, one value a mixture; faulty mixtures are among them.

    Attributes:
        ids: the mixtures, in the order of the file.
        columns: a metric -> its mean over the sources; None where there is none.
        by_source: `<metric>_<source>` -> its value.
        permutations: the estimate (from 1) that stands for each source; empty where the mixture was not scored.
        reasons: why values are missing, or the fault of a mixture; empty text where nothing is wrong.
        fingerprints: of each mixture and its references; empty text where they are not known.
    """

    ids: list[str]
    columns: dict[str, Values]
    by_source: dict[str, Values]
    permutations: list[tuple[int, ...]]
    reasons: list[str]
    fingerprints: list[str]

    @property
    def tested(self) -> dict[str, TestedAgainst]:
        """What each mixture was scored against, by its id."""
        pairs = zip(self.fingerprints, map(len, self.permutations), strict=True)
        return {name: TestedAgainst(*pair) for name, pair in zip(self.ids, pairs, strict=True)}

    def existing(self, column: str) -> list[float]:
        """The values of a metric, of the mixtures that have one."""
        return [value for value in self.columns.get(column, ()) if value is not None]

    def mean(self, column: str) -> float | None:
        """The mean of a metric over the mixtures that have it."""
        values = self.existing(column)
        return statistics.fmean(values) if values else None


def mean_of_sources(values: Sequence[float | None]) -> float | None:
    """The mean over the sources; None when a source has no value, as the mean of the others would flatter."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if len(there) == len(values) else None


def write_scores(
    path: Path, scores: Sequence[UtteranceScores], faults: Sequence[Failure[str]], columns: Sequence[str], n_src: int
) -> None:
    """Write one row a mixture: the means over its sources, then each source's values, permutation, surplus, the
    fingerprint of the test and reasons.

    Raises:
        SepmlError: it cannot be written.
    """
    by_source = [f"{column}_{source + 1}" for source in range(n_src) for column in columns]
    rows = []
    for score in scores:
        of_sources = [_cell(score.values[column][source]) for source in range(n_src) for column in columns]
        means = [_cell(score.mean(column)) for column in columns]
        reasons = "; ".join(f"{item.column}_{item.source}: {item.reason}" for item in score.unscored)
        orders = [" ".join(map(str, numbers)) for numbers in (score.permutation, score.surplus)]
        rows.append([score.mixture_id, *means, *of_sources, *orders, score.fingerprint, reasons])
    blank = [""] * (len(columns) + len(by_source) + 3)
    rows += [[fault.item, *blank, f"{_FAULT}{fault.message}"] for fault in faults]
    write_csv(path, ["mixture_ID", *columns, *by_source, "permutation", "surplus", "fingerprint", "reason"], rows)


def read_means(folder: Path, columns: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """The means over the sources in a folder of scores: mixture_ID -> column -> value, None where there is none.

    Mixtures with a fault are left out.

    Raises:
        SepmlError: there are none, or they are no such table.
    """
    return _scored(folder, columns, lambda row: {column: _value(row[column]) for column in columns})


def read_tested(folder: Path) -> dict[str, TestedAgainst]:
    """What the mixtures in a folder of scores were scored against, by mixture_ID; those with a fault are left out.

    Raises:
        SepmlError: there are none, or they are no such table.
    """
    return _scored(folder, (), lambda row: TestedAgainst(row.get("fingerprint", ""), len(row.get("permutation", "").split())))


def read_score_table(folder: Path) -> ScoreTable:
    """The whole table in a folder of scores, whatever metrics it holds; a column with words in it is no metric.

    Raises:
        SepmlError: there is none, or it is not what `sepml score` writes.
    """
    path, rows = _rows(folder)
    if not rows:
        raise SepmlError(f"{path}: has no rows, expected a header and at least one")
    if "mixture_ID" not in rows[0]:
        raise SepmlError(f"{path}: has no column mixture_ID, expected the scores of `sepml score`")
    cells = {name: [row[name] for row in rows] for name in rows[0]}
    columns: dict[str, Values] = {}
    by_source: dict[str, Values] = {}
    for name in (name for name in cells if name not in _NO_SCORES):
        try:
            numbers = [float(cell) if cell else None for cell in cells[name]]
        except ValueError:
            continue
        values = [value if value is not None and math.isfinite(value) else None for value in numbers]
        for value, cell in zip(values, cells[name], strict=True):
            if abs(value or 0.0) > LARGEST:
                raise SepmlError(f"{path}: {_not_a_score(cell)}")
        base = re.fullmatch(r"(.+)_\d+", name)
        (by_source if base and base[1] in cells else columns)[name] = values
    if not columns:
        raise SepmlError(f"{path}: holds no column of numbers")
    blank = [""] * len(rows)
    permutations = [tuple(map(int, re.findall(r"\d{1,9}", cell))) for cell in cells.get("permutation", blank)]
    reasons, fingerprints = (cells.get(name, blank) for name in ("reason", "fingerprint"))
    return ScoreTable(cells["mixture_ID"], columns, by_source, permutations, reasons, fingerprints)


def _rows(folder: Path, columns: Sequence[str] = ()) -> tuple[Path, list[dict[str, str]]]:
    path = folder / "scores.csv"
    if not path.is_file():
        raise SepmlError(f"{folder}: holds no scores.csv, expected a folder written by `sepml score`")
    return path, [row for _, row in read_rows(path, _WHAT, columns)]


def _scored(folder: Path, columns: Sequence[str], take: Callable[[dict[str, str]], Taken]) -> dict[str, Taken]:
    """`take` of each row by mixture_ID, but for the rows with a fault."""
    path, rows = _rows(folder, ("mixture_ID", "reason", *columns))
    try:
        return {row["mixture_ID"]: take(row) for row in rows if not row["reason"].startswith(_FAULT)}
    except ValueError as error:
        raise SepmlError(f"{path}: not a {_WHAT}: {error}") from error


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _value(cell: str) -> float | None:
    if cell == "":
        return None
    value = float(cell)
    if not abs(value) <= LARGEST:
        raise ValueError(_not_a_score(cell))
    return value


def _not_a_score(cell: str) -> str:
    return f"'{cell[:40]}' among the scores, expected a number within +-{LARGEST:g}"
