"""What many scores come to: means with their counts, the files that keep them, and a table that compares runs."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sepml import __version__
from sepml.errors import SepmlError
from sepml.files import write_csv, write_json
from sepml.parallel import Failure

COLUMNS = {"si_snr": ("si_snr", "si_snri"), "sdr": ("sdr", "sdri"), "stoi": ("stoi",), "pesq": ("pesq",)}
"""The columns that each metric fills; the improvements are over the mixture."""
_TITLES = {
    "si_snr": "SI-SNR dB",
    "si_snri": "SI-SNRi dB",
    "sdr": "SDR dB",
    "sdri": "SDRi dB",
    "stoi": "STOI",
    "pesq": "PESQ",
}
_DECIMALS = {"stoi": 3}
_LIBRARIES = ("numpy", "scipy", "soundfile", "pystoi", "pesq")


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
    """

    mixture_id: str
    permutation: tuple[int, ...]
    values: dict[str, tuple[float | None, ...]]
    unscored: tuple[Unscored, ...]

    def mean(self, column: str) -> float | None:
        """The mean over the sources; None when a source has no value, as the mean of the others would flatter."""
        values = [value for value in self.values[column] if value is not None]
        return statistics.fmean(values) if len(values) == len(self.values[column]) else None


@dataclass(frozen=True)
class ColumnSummary:
    """One column over all mixtures that have a value in it.

    Attributes:
        std: of a sample (n - 1); None for fewer than two values.
        n: mixtures with a value.
        n_unscored: mixtures that were read but have no value.
    """

    mean: float | None
    median: float | None
    std: float | None
    n: int
    n_unscored: int


@dataclass(frozen=True)
class Summary:
    """What the scores of a set of mixtures come to.

    Attributes:
        n_mixtures: mixtures that were to be scored, those with a fault among them.
        columns: column -> its summary.
        unscored: every value that does not exist, with the reason; none of them is in a mean.
        faults: mixtures whose files could not be used (item = mixture_ID); they are in no mean either.
        provenance: date, versions and inputs.
    """

    n_mixtures: int
    columns: dict[str, ColumnSummary]
    unscored: tuple[Unscored, ...]
    faults: tuple[Failure[str], ...]
    provenance: dict[str, Any]


def summarise(
    scores: Sequence[UtteranceScores], faults: Sequence[Failure[str]], columns: Sequence[str], inputs: Mapping[str, str]
) -> Summary:
    """The summary of scores.

    Args:
        inputs: what was scored, as given by the user.
    """
    return Summary(
        n_mixtures=len(scores) + len(faults),
        columns={column: _column(column, scores) for column in columns},
        unscored=tuple(item for score in scores for item in score.unscored),
        faults=tuple(faults),
        provenance={
            "date": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
            "inputs": dict(inputs),
            "versions": {"sepml": __version__, "python": platform.python_version(), **_versions()},
            "machine": platform.platform(),
        },
    )


def write_summary(path: Path, summary: Summary) -> None:
    """Write a summary as JSON.

    Raises:
        SepmlError: it cannot be written.
    """
    content = asdict(summary)
    content["faults"] = [{"mixture_id": fault.item, "message": fault.message} for fault in summary.faults]
    write_json(path, content)


def read_summary(folder: Path) -> Summary:
    """The summary in a folder of scores.

    Raises:
        SepmlError: there is none, or it is not one.
    """
    path = folder / "summary.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Summary(
            n_mixtures=content["n_mixtures"],
            columns={name: ColumnSummary(**column) for name, column in content["columns"].items()},
            unscored=tuple(Unscored(**item) for item in content["unscored"]),
            faults=tuple(Failure(item["mixture_id"], item["message"]) for item in content["faults"]),
            provenance=content["provenance"],
        )
    except FileNotFoundError as error:
        raise SepmlError(f"{folder}: holds no summary.json, expected a folder written by `sepml score`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SepmlError(f"{path}: not a summary of `sepml score`: {error!r}") from error


def write_scores(
    path: Path, scores: Sequence[UtteranceScores], faults: Sequence[Failure[str]], columns: Sequence[str], n_src: int
) -> None:
    """Write one row a mixture: the means over its sources, then each source's values, the permutation and the reasons.

    Raises:
        SepmlError: it cannot be written.
    """
    by_source = [f"{column}_{source + 1}" for source in range(n_src) for column in columns]
    rows = []
    for score in scores:
        of_sources = [_cell(score.values[column][source]) for source in range(n_src) for column in columns]
        means = [_cell(score.mean(column)) for column in columns]
        reasons = "; ".join(f"{item.column}_{item.source}: {item.reason}" for item in score.unscored)
        rows.append([score.mixture_id, *means, *of_sources, " ".join(map(str, score.permutation)), reasons])
    blank = [""] * (len(columns) + len(by_source) + 1)
    rows += [[fault.item, *blank, f"fault: {fault.message}"] for fault in faults]
    write_csv(path, ["mixture_ID", *columns, *by_source, "permutation", "reason"], rows)


def format_table(summaries: Mapping[str, Summary]) -> str:
    """A table of the means, one row a label: plain text that is Markdown as well. Notes below it name what is missing.

    Args:
        summaries: label (such as `peer1`, `ensemble`) -> its summary.
    """
    columns = [column for column in _TITLES if any(column in summary.columns for summary in summaries.values())]
    rows = [["", *(_TITLES[column] for column in columns), "mixtures"]]
    for label, summary in summaries.items():
        means = [_mean(summary.columns.get(column), _DECIMALS.get(column, 2)) for column in columns]
        rows.append([label, *means, str(summary.n_mixtures)])
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|")
    notes = [note for label, summary in summaries.items() for note in _notes(label, summary)]
    return "\n".join([*lines, "", *notes] if notes else lines)


def _column(column: str, scores: Sequence[UtteranceScores]) -> ColumnSummary:
    values = [value for score in scores if (value := score.mean(column)) is not None]
    return ColumnSummary(
        mean=statistics.fmean(values) if values else None,
        median=statistics.median(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        n_unscored=len(scores) - len(values),
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _mean(summary: ColumnSummary | None, decimals: int) -> str:
    return "-" if summary is None or summary.mean is None else f"{summary.mean:.{decimals}f}"


def _notes(label: str, summary: Summary) -> list[str]:
    notes = []
    for column, part in summary.columns.items():
        if part.n_unscored:
            missing = f"{_TITLES[column]} does not exist for {part.n_unscored} of {summary.n_mixtures} mixtures"
            notes.append(f"{label}: {missing}; its mean is over {part.n}.")
    if summary.faults:
        faulty = f"{len(summary.faults)} of {summary.n_mixtures} mixtures"
        notes.append(f"{label}: {faulty} have a fault and are in no mean.")
    return notes


def _versions() -> dict[str, str]:
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "unknown"
    return versions
