"""One page about scores and training: tables, plots and players in a single, self-contained HTML file."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sepml.errors import SepmlError
from sepml.pages import read_template, render, script_hash
from sepml.pages.style import page_style
from sepml.speech.report.contents import History, ScoreFolder, Test, data_of, find_contents, metrics_of
from sepml.speech.report.players import listen
from sepml.speech.report.plots import SERIES, curves, legend, plots_of
from sepml.speech.report.quality_section import quality_section
from sepml.speech.results.scores import COLUMNS
from sepml.speech.results.summary import ColumnSummary
from sepml.speech.results.tables import decimals_of, title
from sepml.system.files import write_text
from sepml.version import __version__

MOST_BYTES = 14_500_000
"""The limit of the page's size; players that do not fit are left out, and the page says so."""
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline';"
_CURVES = {
    "gate_open": "gate open, fraction",
    "threshold": "threshold",
    "learning_rate": "learning rate",
    "mimic": "mimic loss",
    "agreement": "agreement of the peers",
    "grad_norm": "gradient norm",
}
_MOST_NOTES = 6
_SECTIONS = {
    "summary": "Summary",
    "quality": "Without references",
    "training": "Training",
    "listen": "Listen",
    "plots": "Plots",
    "table": "Utterances",
}


@dataclass(frozen=True)
class ReportSettings:
    """What a report shows.

    Attributes:
        players: utterances to listen to for each test: this many of the best, of the worst and of the others; 0 is none.
        seed: of the random choice of the others.
        heading: of the page; by default the names of the folders.
    """

    players: int = 2
    seed: int = 0
    heading: str = ""


def write_report(paths: Sequence[Path], out: Path, settings: ReportSettings | None = None) -> int:
    """Write one self-contained HTML page about score folders and experiments, written atomically.

    Args:
        paths: folders of scores (`sepml score`, with references or without), and experiments (`sepml train`) with their
            scores/<test>/<peer>.
        out: the HTML file.

    Returns:
        the size of the page in bytes, at most 15 MB. The page lists audio files that no longer exist.

    Raises:
        SepmlError: a path holds neither, a file in it cannot be read, or the page cannot be written.
    """
    settings = settings or ReportSettings()
    if not paths:
        raise SepmlError("a report needs a folder of scores or of an experiment; none was given")
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise SepmlError(f"{out}: a report is a web page, expected a name that ends in .html")
    tests, histories = find_contents(paths)
    heading = settings.heading or ", ".join(dict.fromkeys(Path(path).resolve().name for path in paths))
    data, cut = data_of(tests)
    script = "".join(map(read_template, ("players.js", "tables.js", "report.js")))
    parts = {
        "summary": _summary(tests),
        "quality": quality_section(paths),
        "training": _training(histories),
        "plots": plots_of(tests),
    }
    parts["table"] = render("table.html") if tests else Markup()
    around = sum(len(part.encode()) for part in (*parts.values(), data, script)) + 40_000
    parts["listen"] = listen(tests, settings.players, settings.seed, MOST_BYTES - around)
    page = render(
        "report.html",
        **{"heading": heading, "kind": "separation" if parts["quality"] else _kind(tests, histories), "version": __version__},
        date=datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M"),
        policy=f"{_POLICY} script-src '{script_hash(script)}'",
        style=page_style(),
        parts={name: parts[name] for name in _SECTIONS if parts[name]},
        **{"sections": _SECTIONS, "cut": cut, "data": data, "script": script},
    )
    write_text(Path(out), page)
    return len(page.encode())


def _kind(tests: Sequence[Test], histories: Sequence[History]) -> str:
    """The kind of the page: separation, or training of another task."""
    metrics = {column for columns in COLUMNS.values() for column in columns}
    validated = {name.removeprefix("valid_") for history in histories for name in history.columns}
    return "separation" if tests or validated & metrics else "training"


def _summary(tests: Sequence[Test]) -> Markup:
    """Tables of means, one for each test, with one row for each score folder; empty without tests."""
    return render("summary.html", tests=[_summary_table(test) for test in tests]) if tests else Markup()


def _summary_table(test: Test) -> dict[str, Any]:
    columns = metrics_of(test.runs)
    best = {}
    if len(test.runs) > 1:
        best = {c: max((m for run in test.runs if (m := run.scores.mean(c)) is not None), default=None) for c in columns}
    return {
        "title": test.title,
        "titles": [title(column) for column in columns],
        "rows": [_summary_row(run, columns, best) for run in test.runs],
        "notes": [note for run in test.runs for note in _notes(run)],
        "sources": [_source(run) for run in test.runs],
    }


def _summary_row(run: ScoreFolder, columns: Sequence[str], best: Mapping[str, float | None]) -> dict[str, Any]:
    cells: list[dict[str, Any]] = []
    for column in columns:
        mean, decimals = run.scores.mean(column), decimals_of(column)
        if mean is None:
            cells.append({"mean": "\N{EN DASH}", "best": False, "lines": []})
            continue
        lines = [f"median {_shown(statistics.median(run.scores.existing(column)), decimals)}"]
        if spread := _spread(run.summary.columns.get(column), decimals):
            lines.append(spread)
        cells.append({"mean": _shown(mean, decimals), "best": mean == best.get(column), "lines": lines})
    return {"label": run.label, "cells": cells, "mixtures": len(run.scores.ids)}


def _spread(facts: ColumnSummary | None, decimals: int) -> str:
    """The interval of a mean if the summary has one, otherwise the standard deviation."""
    if facts is None:
        return ""
    if facts.interval_95 is not None:
        low, high = (_shown(end, decimals) for end in facts.interval_95)
        return f"95 % {low} to {high}"
    return "" if facts.std is None else f"std {_shown(facts.std, decimals)}"


def _notes(run: ScoreFolder) -> list[str]:
    lacking = {column: values.count(None) for column, values in run.scores.columns.items()}
    of = len(run.scores.ids)
    lines = [f"{run.label}: {title(column)} does not exist for {n} of {of} mixtures." for column, n in lacking.items() if n]
    return lines[:_MOST_NOTES]


def _source(run: ScoreFolder) -> dict[str, str]:
    """The origin of the scores."""
    given = {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in run.inputs.items()}
    inputs = "; ".join(f"{key}: {value}" for key, value in given.items())
    return {"label": run.label, "date": str(run.summary.provenance.get("date", "")), "inputs": inputs}


def _training(histories: Sequence[History]) -> Markup:
    """Curves over the epochs, one block for each experiment; empty without experiments."""
    blocks = []
    for history in histories:
        peers = list(next(iter(history.columns.values()), {}))
        names = [name for name in history.columns if name.startswith(("train_", "valid_"))]
        names += [name for name in _CURVES if name in history.columns]
        drawn = {name: {f"peer {p}": of for p, of in [*history.columns[name].items()][:SERIES]} for name in names}
        epochs = f"{len(history.epochs)} epoch{'s' * (len(history.epochs) != 1)}"
        block = {"title": f"{history.label}, {epochs}", "legend": legend([f"peer {peer}" for peer in peers[:SERIES]])}
        blocks.append({**block, "figures": [curves(history.epochs, drawn[name], _curve_title(name)) for name in names]})
    return render("training.html", blocks=blocks) if blocks else Markup()


def _curve_title(column: str) -> str:
    """The title of a column of history.csv; columns of metrics have the metric after their first word."""
    first, _, rest = column.partition("_")
    if first in ("train", "valid"):
        return f"{'training loss' if first == 'train' else 'validation'}, {title(rest)}"
    return _CURVES.get(column, column)


def _shown(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
