"""The sections of a report: summary tables, training curves, plots."""

import json
import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

from sepml.speech.report.plots import SERIES, curves, histogram, legend, scatter
from sepml.speech.report.scores import History, Scores, Test, title

_MOST_PAIRS = 3
_CURVES = {
    "gate_open": "gate open, fraction",
    "threshold": "threshold",
    "learning_rate": "learning rate",
    "mimic": "mimic loss",
    "agreement": "agreement of the peers",
    "grad_norm": "gradient norm",
}
_THREE_DECIMALS = ("stoi", "stoii", "estoi", "estoii")


def summary(tests: Sequence[Test]) -> str:
    """Tables of means, one a test, one row a score folder; empty text where there is no test."""
    if not tests:
        return ""
    tables = []
    for test in tests:
        columns = columns_of(test.runs)
        best = {c: max((m for run in test.runs if (m := run.mean(c)) is not None), default=None) for c in columns}
        rows = "".join(_summary_row(run, columns, best if len(test.runs) > 1 else {}) for run in test.runs)
        heads = "".join(f'<th scope="col">{escape(title(c))}</th>' for c in columns)
        notes = "".join(f"<p>{escape(note)}</p>" for run in test.runs for note in _notes(run))
        tables.append(
            f"<h3>{escape(test.title)}</h3>"
            f'<div class="scroll" tabindex="0" role="region" aria-label="means, {escape(test.title)}">'
            f'<table><thead><tr><th scope="col">scores</th>{heads}<th scope="col">mixtures</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>{notes}{_details(test.runs)}"
        )
    said = "Means over the mixtures that have a value; the small figures are the median and what the scores say of the spread."
    return f'<section id="summary"><h2>Summary</h2><p class="soft">{said}</p>{"".join(tables)}</section>'


def _summary_row(run: Scores, columns: Sequence[str], best: dict[str, float | None]) -> str:
    cells = []
    for column in columns:
        mean, decimals = run.mean(column), decimals_of(column)
        if mean is None:
            cells.append("<td>\N{EN DASH}</td>")
            continue
        median = statistics.median(value for value in run.columns[column] if value is not None)
        facts = run.summary["columns"].get(column)
        interval = _interval(facts, decimals) if isinstance(facts, dict) else ""
        mark = ' class="best"' if mean == best.get(column) else ""
        cells.append(
            f"<td{mark}>{_shown(mean, decimals)}<small>median {_shown(median, decimals)}</small>"
            f"{f'<small>{interval}</small>' if interval else ''}</td>"
        )
    return f'<tr><th scope="row">{escape(run.label)}</th>{"".join(cells)}<td>{len(run.ids)}</td></tr>'


def _interval(facts: dict[str, Any], decimals: int) -> str:
    """What a summary says of a mean's confidence: an interval where it has one, else the deviation."""
    for value in facts.values():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
            return f"95 % {_shown(value[0], decimals)} to {_shown(value[1], decimals)}"
    low, high = (next((facts[k] for k in facts if k.endswith(end)), None) for end in ("low", "high"))
    if isinstance(low, int | float) and isinstance(high, int | float):
        return f"95 % {_shown(low, decimals)} to {_shown(high, decimals)}"
    return f"std {_shown(facts['std'], decimals)}" if isinstance(facts.get("std"), int | float) else ""


def _notes(run: Scores) -> list[str]:
    lacking = {c: sum(value is None for value in values) for c, values in run.columns.items()}
    lines = [f"{run.label}: {title(c)} does not exist for {n} of {len(run.ids)} mixtures." for c, n in lacking.items() if n]
    return lines[:6]


def _details(runs: Sequence[Scores]) -> str:
    """Where the scores come from."""
    items = []
    for run in runs:
        given = {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in run.inputs.items()}
        said = "; ".join(f"{key}: {value}" for key, value in given.items())
        provenance = run.summary.get("provenance")
        date = provenance.get("date", "") if isinstance(provenance, dict) else ""
        items.append(f"<p><b>{escape(run.label)}</b> {escape(str(date))}<br><code>{escape(said)}</code></p>")
    return f'<details class="more"><summary>Where these scores come from</summary>{"".join(items)}</details>'


def training(histories: Sequence[History]) -> str:
    """Curves over the epochs, one block an experiment."""
    blocks = []
    for history in histories:
        peers = list(next(iter(history.columns.values()), {}))
        names = [name for name in history.columns if name.startswith(("train_", "valid_"))]
        names += [name for name in _CURVES if name in history.columns]
        drawn = {name: {f"peer {p}": of for p, of in [*history.columns[name].items()][:SERIES]} for name in names}
        figures = "".join(curves(history.epochs, drawn[name], _curve_title(name)) for name in names)
        shown_peers = legend([f"peer {peer}" for peer in peers[:SERIES]])
        epochs = f"{len(history.epochs)} epoch{'s' * (len(history.epochs) != 1)}"
        blocks.append(f'<h3>{escape(history.label)}, {epochs}</h3>{shown_peers}<div class="plots">{figures}</div>')
    return f'<section id="training"><h2>Training</h2>{"".join(blocks)}</section>' if blocks else ""


def plots(tests: Sequence[Test]) -> str:
    """Scatters and histograms, one block a test."""
    blocks = []
    for t, test in enumerate(tests):
        runs = test.runs[:SERIES]
        figures = [_input_scatter(t, test, base) for base in ("si_snr", "sdr")]
        figures += [_pair_scatter(t, test, other) for other in range(1, min(len(runs), _MOST_PAIRS + 1))]
        figures += [histogram({r.label: r.columns.get(c, ()) for r in runs}, title(c)) for c in columns_of(runs)]
        more = len(test.runs) - len(runs)
        note = f"<p>The first {len(runs)} of {len(test.runs)} score folders are drawn.</p>" if more else ""
        key = legend([run.label for run in runs])
        blocks.append(f'<h3>{escape(test.title)}</h3>{key}{note}<div class="plots">{"".join(figures)}</div>')
    said = "A dot is a mixture: point at it for its name. Histograms count mixtures, the upright line is the mean."
    head = f'<section id="plots"><h2>Plots</h2><p class="soft">{said}</p>'
    return f"{head}{''.join(blocks)}</section>" if blocks else ""


def _curve_title(column: str) -> str:
    """A column of history.csv for people; the columns that name a metric have it after their first word."""
    first, _, rest = column.partition("_")
    if first in ("train", "valid"):
        return f"{'training loss' if first == 'train' else 'validation'}, {title(rest)}"
    return _CURVES.get(column, column)


def columns_of(runs: Sequence[Scores]) -> list[str]:
    """The metrics that any of the runs has."""
    return list(dict.fromkeys(column for run in runs for column in run.columns))


def decimals_of(column: str) -> int:
    """The decimals that a metric is shown with."""
    return 3 if column in _THREE_DECIMALS else 2


def _shown(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _input_scatter(t: int, test: Test, base: str) -> str:
    """The improvement against what the mixture had: a metric less its improvement."""
    runs = [run for run in test.runs[:SERIES] if {base, f"{base}i"} <= run.columns.keys()]
    if len(runs) < len(test.runs[:SERIES]):
        return ""  # colours are by position
    before = {
        run.label: [
            None if a is None or b is None else a - b for a, b in zip(run.columns[base], run.columns[f"{base}i"], strict=True)
        ]
        for run in runs
    }
    gains = {run.label: run.columns[f"{base}i"] for run in runs}
    data = json.dumps([t, "gain", base, f"{base}i"])
    return scatter(before, gains, f"{title(base)} of the mixture", title(f"{base}i"), data=data)


def _pair_scatter(t: int, test: Test, other: int) -> str:
    """One run against another by the first metric that both have as an improvement, or else by their first one."""
    a, b = test.runs[0], test.runs[other]
    shared = [column for column in a.columns if column in b.columns]
    column = next((column for column in ("si_snri", *shared) if column in shared), None)
    if column is None:
        return ""
    at = {name: i for i, name in enumerate(b.ids)}
    theirs = [b.columns[column][at[name]] if name in at else None for name in a.ids]
    data = json.dumps([t, "pair", [0, other], column])
    name = title(column)
    return scatter({"": a.columns[column]}, {"": theirs}, f"{name}, {a.label}", f"{name}, {b.label}", diagonal=True, data=data)
