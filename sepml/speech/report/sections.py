"""The sections of a report: summary tables, training curves, plots."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sepml.speech.report.contents import History, ScoreFolder, Test
from sepml.speech.report.plots import SERIES, curves, histogram, legend, scatter
from sepml.speech.report.rendering import render
from sepml.speech.results.summary import ColumnSummary
from sepml.speech.results.tables import decimals_of, title

_MOST_PAIRS = 3
_CURVES = {
    "gate_open": "gate open, fraction",
    "threshold": "threshold",
    "learning_rate": "learning rate",
    "mimic": "mimic loss",
    "agreement": "agreement of the peers",
    "grad_norm": "gradient norm",
}
_MOST_NOTES = 6


def summary(tests: Sequence[Test]) -> Markup:
    """Tables of means, one a test, one row a score folder; empty text where there is no test."""
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
    """The interval of a mean where the summary has one, else the deviation."""
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


def training(histories: Sequence[History]) -> Markup:
    """Curves over the epochs, one block an experiment; empty text where there is none."""
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


def plots(tests: Sequence[Test]) -> Markup:
    """Scatters and histograms, one block a test; empty text where there is none."""
    blocks = []
    for t, test in enumerate(tests):
        runs = test.runs[:SERIES]
        figures = [_input_scatter(t, test, base) for base in ("si_snr", "sdr")]
        figures += [_pair_scatter(t, test, other) for other in range(1, min(len(runs), _MOST_PAIRS + 1))]
        for column in metrics_of(runs):
            figures.append(histogram({run.label: run.scores.columns.get(column, ()) for run in runs}, title(column)))
        cut = f"The first {len(runs)} of {len(test.runs)} score folders are drawn." if len(test.runs) > len(runs) else ""
        key = legend([run.label for run in runs])
        blocks.append({"title": test.title, "legend": key, "note": cut, "figures": figures})
    return render("plots.html", blocks=blocks) if blocks else Markup()


def _curve_title(column: str) -> str:
    """A column of history.csv for people; the columns that name a metric have it after their first word."""
    first, _, rest = column.partition("_")
    if first in ("train", "valid"):
        return f"{'training loss' if first == 'train' else 'validation'}, {title(rest)}"
    return _CURVES.get(column, column)


def metrics_of(runs: Sequence[ScoreFolder]) -> list[str]:
    """The metrics that any of the runs has."""
    return list(dict.fromkeys(column for run in runs for column in run.scores.columns))


def _shown(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _input_scatter(t: int, test: Test, base: str) -> Markup:
    """The improvement against what the mixture had: a metric less its improvement."""
    runs, gain = test.runs[:SERIES], f"{base}i"
    # Colours are by position, so all runs are drawn or none.
    if not all({base, gain} <= run.scores.columns.keys() for run in runs):
        return Markup()
    before = {run.label: _less(run.scores.columns[base], run.scores.columns[gain]) for run in runs}
    gains = {run.label: run.scores.columns[gain] for run in runs}
    data = json.dumps([t, "gain", base, gain])
    return scatter(before, gains, f"{title(base)} of the mixture", title(gain), data=data)


def _less(values: Sequence[float | None], others: Sequence[float | None]) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(values, others, strict=True)]


def _pair_scatter(t: int, test: Test, other: int) -> Markup:
    """One run against another by the first metric that both have as an improvement, or else by their first one."""
    a, b = test.runs[0], test.runs[other]
    shared = [column for column in a.scores.columns if column in b.scores.columns]
    column = next((column for column in ("si_snri", *shared) if column in shared), None)
    if column is None:
        return Markup()
    values = dict(zip(b.scores.ids, b.scores.columns[column], strict=True))
    theirs = [values.get(mixture_id) for mixture_id in a.scores.ids]
    data = json.dumps([t, "pair", [0, other], column])
    name = title(column)
    return scatter(
        {"": a.scores.columns[column]}, {"": theirs}, f"{name}, {a.label}", f"{name}, {b.label}", diagonal=True, data=data
    )
