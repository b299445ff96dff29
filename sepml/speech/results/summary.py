"""Means of many scores with counts and intervals, and their file summary.json, which only this module writes and reads."""

import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.results.scores import LARGEST, Unscored, UtteranceScores
from sepml.system.files import write_json
from sepml.system.parallel import Failure
from sepml.system.readers import read_object
from sepml.system.statistics import interval_of_mean
from sepml.version import __version__

_LIBRARIES = ("numpy", "scipy", "soundfile", "pesq")


@dataclass(frozen=True)
class ColumnSummary:
    """One column over all mixtures that have a value in it.

    Attributes:
        std: of a sample (n - 1); None for fewer than two values.
        n: mixtures with a value.
        n_unscored: mixtures that were read but have no value.
        standard_error: of the mean, std / sqrt(n).
        interval_95: the ends of the mean's bootstrap interval over mixtures; None for fewer than two values.
    """

    mean: float | None
    median: float | None
    std: float | None
    n: int
    n_unscored: int
    standard_error: float | None = None
    interval_95: tuple[float, float] | None = None


@dataclass(frozen=True)
class Summary:
    """Summary of the scores of a set of mixtures.

    Attributes:
        n_mixtures: mixtures that were to be scored, including those with a fault.
        columns: column -> its summary.
        unscored: every value that does not exist, with the reason; none of them is in a mean.
        faults: mixtures whose files could not be used (item = mixture_ID); they are in no mean either.
        provenance: date, versions and inputs.
        n_adjusted: estimates that were cut, or padded with zeros, to the length of their mixture.
        largest_adjustment: samples by which the length of one of them differed at most.
    """

    n_mixtures: int
    columns: dict[str, ColumnSummary]
    unscored: tuple[Unscored, ...]
    faults: tuple[Failure[str], ...]
    provenance: dict[str, Any]
    n_adjusted: int = 0
    largest_adjustment: int = 0


def summarise(
    scores: Sequence[UtteranceScores], faults: Sequence[Failure[str]], columns: Sequence[str], inputs: Mapping[str, str]
) -> Summary:
    """The summary of scores.

    Args:
        inputs: what was scored, as given by the user.
    """
    adjusted = [abs(samples) for score in scores for samples in score.length_differences if samples]
    return Summary(
        n_mixtures=len(scores) + len(faults),
        columns={column: _column(column, scores) for column in columns},
        unscored=tuple(item for score in scores for item in score.unscored),
        faults=tuple(faults),
        provenance={
            "date": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
            "inputs": dict(inputs),
            "versions": versions(),
            "machine": platform.platform(),
        },
        n_adjusted=len(adjusted),
        largest_adjustment=max(adjusted, default=0),
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
        content = read_object(path, "summary of `sepml score`")
        if not isinstance(content["provenance"].get("inputs", {}), dict):
            raise ValueError("its inputs are no mapping")
        return Summary(
            n_mixtures=content["n_mixtures"],
            columns={name: _column_from(column) for name, column in content["columns"].items()},
            unscored=tuple(_unscored(item) for item in content["unscored"]),
            faults=tuple(Failure(item["mixture_id"], item["message"]) for item in content["faults"]),
            provenance=content["provenance"],
            n_adjusted=int(content.get("n_adjusted", 0)),
            largest_adjustment=int(content.get("largest_adjustment", 0)),
        )
    except FileNotFoundError as error:
        below = sorted(str(file.parent) for file in folder.glob("*/summary.json"))
        hint = f"; it holds those of {', '.join(below)}" if below else ""
        raise SepmlError(f"{folder}: holds no summary.json, expected a folder written by `sepml score`{hint}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SepmlError(f"{path}: not a summary of `sepml score`: {error!r}") from error


def score_folders_below(folder: Path) -> list[Path]:
    """The folders directly below that hold a summary: peers in order, then the others."""
    return sorted((file.parent for file in folder.glob("*/summary.json")), key=_peers_first)


def _peers_first(folder: Path) -> tuple[int, str]:
    peer = re.fullmatch(r"peer(\d+)", folder.name)
    return (0, peer[1].zfill(9)) if peer else (1, folder.name)


def _column(column: str, scores: Sequence[UtteranceScores]) -> ColumnSummary:
    values = [value for score in scores if (value := score.mean(column)) is not None]
    std = statistics.stdev(values) if len(values) > 1 else None
    return ColumnSummary(
        mean=statistics.fmean(values) if values else None,
        median=statistics.median(values) if values else None,
        std=std,
        n=len(values),
        n_unscored=len(scores) - len(values),
        standard_error=None if std is None else std / len(values) ** 0.5,
        interval_95=interval_of_mean(np.array(values)),
    )


def _column_from(content: Mapping[str, Any]) -> ColumnSummary:
    interval = content.get("interval_95")
    column = ColumnSummary(**{**content, "interval_95": tuple(interval) if interval else None})
    numbers = (column.mean, column.median, column.std, column.standard_error, *(column.interval_95 or ()))
    for value in (*numbers, column.n, column.n_unscored):
        if value is not None and not (isinstance(value, int | float) and abs(value) <= LARGEST):
            raise ValueError(f"{str(value)[:40]!r} among the scores, expected a number within +-{LARGEST:g}")
    return column


def _unscored(content: Mapping[str, Any]) -> Unscored:
    item = Unscored(**content)
    if not all(isinstance(text, str) for text in (item.mixture_id, item.column, item.reason)):
        raise ValueError(f"{str(content)[:80]} is no value without a score")
    return item


def versions() -> dict[str, str]:
    """The versions of everything that a score can depend on."""
    found = {"sepml": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "unknown"
    return found
