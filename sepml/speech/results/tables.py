"""Scores as tables: one row a mixture in a CSV file, and plain text that is Markdown as well."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sepml.errors import SepmlError
from sepml.speech.results.summary import LARGEST, ColumnSummary, Summary, UtteranceScores
from sepml.system.csv_files import read_rows
from sepml.system.files import write_csv
from sepml.system.parallel import Failure
from sepml.system.tables import markdown

TITLES = {
    "si_snr": "SI-SNR dB",
    "si_snri": "SI-SNRi dB",
    "sdr": "SDR dB",
    "sdri": "SDRi dB",
    "sir": "SIR dB",
    "sar": "SAR dB",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "pesq": "PESQ",
    "pesq_nb": "PESQ-NB",
}
DECIMALS = {"stoi": 3, "estoi": 3}
Taken = TypeVar("Taken")
_NAMED = 3
_FAULT = "fault: "


@dataclass(frozen=True)
class Tested:
    """What a mixture was scored against: the fingerprint of it and its references, and the number of these.

    The fingerprint is empty and the number 0 where the table does not say.
    """

    fingerprint: str
    n_src: int

    def agrees(self, other: "Tested") -> bool:
        """Whether nothing shows that the two are of other mixtures or references."""
        pairs = ((self.fingerprint, other.fingerprint), (self.n_src, other.n_src))
        return all(not one or not two or one == two for one, two in pairs)


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


def read_scores(folder: Path, columns: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """The means over the sources in a folder of scores: mixture_ID -> column -> value, None where there is none.

    Mixtures with a fault are left out.

    Raises:
        SepmlError: there are none, or they are no such table.
    """
    return _read(folder, columns, lambda row: {column: _value(row[column]) for column in columns})


def read_tested(folder: Path) -> dict[str, Tested]:
    """What the mixtures in a folder of scores were scored against, by mixture_ID; those with a fault are left out.

    Raises:
        SepmlError: there are none, or they are no such table.
    """
    return _read(folder, (), lambda row: Tested(row.get("fingerprint") or "", len((row.get("permutation") or "").split())))


def _read(folder: Path, columns: Sequence[str], take: Callable[[dict[str, str]], Taken]) -> dict[str, Taken]:
    """What is taken of each row of scores.csv by mixture_ID, but for the rows with a fault."""
    path = folder / "scores.csv"
    if not path.is_file():
        raise SepmlError(f"{folder}: holds no scores.csv, expected a folder written by `sepml score`")
    rows = [row for _, row in read_rows(path, "table of `sepml score`", ("mixture_ID", "reason", *columns))]
    rows = [row for row in rows if not row["reason"].startswith(_FAULT)]
    try:
        return {row["mixture_ID"]: take(row) for row in rows}
    except ValueError as error:
        raise SepmlError(f"{path}: not a table of `sepml score`: {error}") from error


def format_table(summaries: Mapping[str, Summary]) -> str:
    """A table of the means, one row a label. Notes below it name what is missing.

    Args:
        summaries: label (such as `peer1`, `ensemble`) -> its summary.
    """
    columns = [column for column in TITLES if any(column in summary.columns for summary in summaries.values())]
    rows = [["", *(TITLES[column] for column in columns), "mixtures"]]
    for label, summary in summaries.items():
        means = [number(_mean(summary.columns.get(column)), column) for column in columns]
        rows.append([label, *means, str(summary.n_mixtures)])
    return "\n".join([markdown(rows), *_paragraph(note for item in summaries.items() for note in notes(*item))])


def format_summary(label: str, summary: Summary) -> str:
    """A table of one summary, one row a metric: mean, median, standard error, interval and count; notes as above."""
    rows = [[label, "mean", "median", "std. error", "95 % interval", "n"]]
    for column, part in summary.columns.items():
        cells = [number(value, column) for value in (part.mean, part.median)]
        error = "-" if part.standard_error is None else f"{part.standard_error:.{DECIMALS.get(column, 2) + 1}f}"
        rows.append([TITLES.get(column, column), *cells, error, interval(part.interval_95, column), str(part.n)])
    return "\n".join([markdown(rows), *_paragraph(notes(label, summary))])


def number(value: float | None, column: str) -> str:
    """A value of a column with its decimals, or a dash."""
    return "-" if value is None else f"{value:.{DECIMALS.get(column, 2)}f}"


def interval(ends: tuple[float, float] | None, column: str) -> str:
    """The ends of an interval, or a dash."""
    return "-" if ends is None else " to ".join(number(end, column) for end in ends)


def notes(label: str, summary: Summary) -> list[str]:
    """What has no value, how often, why and where; what has a fault."""
    found = []
    for column, part in summary.columns.items():
        if part.n_unscored:
            missing = f"{TITLES.get(column, column)} does not exist for {part.n_unscored} of {summary.n_mixtures} mixtures"
            found.append(f"{label}: {missing} ({_reasons(column, summary)}); its mean is over {part.n}.")
    if summary.faults:
        faulty = f"{len(summary.faults)} of {summary.n_mixtures} mixtures"
        found.append(f"{label}: {faulty} have a fault and are in no mean.")
    if summary.n_adjusted:
        samples = f"{summary.largest_adjustment} sample{'s' * (summary.largest_adjustment != 1)}"
        found.append(f"{label}: {summary.n_adjusted} estimates were cut, or padded with zeros, by up to {samples}.")
    return found


def _reasons(column: str, summary: Summary) -> str:
    """Each reason with the mixtures that it holds for, the most frequent first."""
    of = {(item.reason, item.mixture_id): None for item in summary.unscored if item.column == column}
    texts = []
    for reason, count in Counter(reason for reason, _ in of).most_common():
        ids = [mixture_id for why, mixture_id in of if why == reason]
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        texts.append(f"{reason}: {', '.join(ids[:_NAMED])}{more}")
    return "; ".join(texts)


def _paragraph(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return ["", *lines] if lines else []


def _mean(part: ColumnSummary | None) -> float | None:
    return None if part is None else part.mean


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _value(cell: str) -> float | None:
    if cell == "":
        return None
    value = float(cell)
    if not abs(value) <= LARGEST:
        raise ValueError(f"'{cell[:40]}' among the scores, expected a number within +-{LARGEST:g}")
    return value
