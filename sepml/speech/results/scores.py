"""The metrics and their columns, the scores of mixtures, and the table scores.csv, which only this module writes and reads.

The command line needs the names of the metrics, so nothing heavy is imported before it is used.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepml.errors import SepmlError
from sepml.system.files import write_csv

if TYPE_CHECKING:
    from sepml.system.parallel import Failure

COLUMNS = {
    "si_snr": ("si_snr", "si_snri"),
    "sdr": ("sdr", "sdri"),
    "sir": ("sir",),
    "sar": ("sar",),
    "stoi": ("stoi",),
    "estoi": ("estoi",),
    "pesq": ("pesq",),
    "pesq_nb": ("pesq_nb",),
}
"""The columns that each metric fills; the improvements are over the mixture."""
KNOWN = tuple(COLUMNS)
"""All metrics, in the order of their columns."""
METRICS = tuple(name for name in KNOWN if name != "pesq_nb")
"""The default metrics; at 8 kHz `pesq` is already narrow-band."""
LARGEST = 1e9
"""The largest score that is allowed: sums of numbers near the end of float64's range would overflow."""
_FAULT = "fault: "
_WHAT = "table of `sepml score`"
# Columns of scores.csv that hold no scores.
_NO_SCORES = ("mixture_ID", "permutation", "surplus", "fingerprint", "reason")
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
        values: column -> one value for each source; None where there is none.
        unscored: the reason for each None.
        surplus: estimates (from 1) that stand for no source, where there are more estimates than sources.
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
        """Whether the two may be of the same mixture and references, by all that is known of both."""
        pairs = ((self.fingerprint, other.fingerprint), (self.n_src, other.n_src))
        return all(not one or not two or one == two for one, two in pairs)


@dataclass(frozen=True)
class ScoreTable:
    """The columns of a scores.csv, one value for each mixture, also for mixtures with a fault.

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

    @property
    def faulty(self) -> set[str]:
        """The mixtures whose files could not be used."""
        return {name for name, reason in zip(self.ids, self.reasons, strict=True) if reason.startswith(_FAULT)}

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
    path: Path, scores: Sequence[UtteranceScores], faults: "Sequence[Failure[str]]", columns: Sequence[str], n_src: int
) -> None:
    """Write the table: one row for each mixture.

    A row has the means over the sources, the values of each source (empty cells for those that it does not have, of `n_src`),
    permutation, surplus, fingerprint and reasons.

    Raises:
        SepmlError: it cannot be written.
    """
    by_source = [f"{column}_{source + 1}" for source in range(n_src) for column in columns]
    rows = []
    for score in scores:
        by_number = [[_cell(score.values[column][source]) for column in columns] for source in range(len(score.permutation))]
        of_sources = [*chain(*by_number), *[""] * (len(by_source) - len(by_number) * len(columns))]
        means = [_cell(score.mean(column)) for column in columns]
        reasons = "; ".join(f"{item.column}_{item.source}: {item.reason}" for item in score.unscored)
        orders = [" ".join(map(str, numbers)) for numbers in (score.permutation, score.surplus)]
        rows.append([score.mixture_id, *means, *of_sources, *orders, score.fingerprint, reasons])
    blank = [""] * (len(columns) + len(by_source) + 3)
    rows += [[fault.item, *blank, f"{_FAULT}{fault.message}"] for fault in faults]
    write_csv(path, ["mixture_ID", *columns, *by_source, "permutation", "surplus", "fingerprint", "reason"], rows)


def read_score_table(folder: Path, metrics: Sequence[str] = ()) -> ScoreTable:
    """The whole table in a folder of scores, whatever metrics it holds; a column with text in it is no metric.

    Args:
        metrics: required columns, which hold finite numbers or empty cells; in other columns, a number that is not finite
            counts as an empty cell.

    Raises:
        SepmlError: there is none, or it is not what `sepml score` writes.
    """
    from sepml.system.csv_files import read_rows

    path = folder / "scores.csv"
    if not path.is_file():
        raise SepmlError(f"{folder}: holds no scores.csv, expected a folder written by `sepml score`")
    rows = [row for _, row in read_rows(path, _WHAT, ("mixture_ID", *metrics))]
    if not rows:
        raise SepmlError(f"{path}: has no rows, expected a header and at least one")
    cells = {name: [row[name] for row in rows] for name in rows[0]}
    columns: dict[str, Values] = {}
    by_source: dict[str, Values] = {}
    for name in (name for name in cells if name not in _NO_SCORES):
        try:
            values = _values(cells[name], name in metrics)
        except ValueError as error:
            raise SepmlError(f"{path}: not a {_WHAT}: {error}") from error
        base = re.fullmatch(r"(.+)_\d+", name)
        if values is not None:
            (by_source if base and base[1] in cells else columns)[name] = values
    if not columns:
        raise SepmlError(f"{path}: holds no column of numbers, expected a {_WHAT}")
    blank = [""] * len(rows)
    permutations = [tuple(map(int, re.findall(r"\d{1,9}", cell))) for cell in cells.get("permutation", blank)]
    reasons, fingerprints = (cells.get(name, blank) for name in ("reason", "fingerprint"))
    return ScoreTable(cells["mixture_ID"], columns, by_source, permutations, reasons, fingerprints)


def _values(cells: Sequence[str], required: bool) -> Values | None:
    """The numbers of a column; None where one of its cells holds text.

    Raises:
        ValueError: a number is no score, or the column is required and holds text.
    """
    try:
        numbers = [float(cell) if cell else None for cell in cells]
    except ValueError:
        if required:
            raise
        return None
    for cell, value in zip(cells, numbers, strict=True):
        allowed = value is None or abs(value) <= LARGEST or not (required or math.isfinite(value))
        if not allowed:
            raise ValueError(f"'{cell[:40]}' among the scores, expected a number within +-{LARGEST:g}")
    return [value if value is not None and math.isfinite(value) else None for value in numbers]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"
