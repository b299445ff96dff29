"""Plots of a report as inline SVG: histograms, scatters, curves, whose colours and line styles the page's style sheet sets."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from sepml.pages import render
from sepml.speech.report.contents import Test, metrics_of
from sepml.speech.results.tables import title

SERIES = 6
"""The number of series that colours and line styles can distinguish."""
_WIDTH, _HEIGHT = 400, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 42
_MOST_BINS = 30
_MOST_POINTS = 5000
_MOST_PAIRS = 3
Series = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Mark:
    """A path of a plot: its style (a class of the style sheet), and its SVG path."""

    style: str
    path: str


@dataclass(frozen=True)
class Axis:
    """A linear axis: the values `low` and `high` lie at the pixels `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values in the range, 1, 2 or 5 times a power of ten apart.

        >>> Axis(-1.0, 9.0, 0, 100).ticks()
        [0.0, 2.0, 4.0, 6.0, 8.0]
        """
        step = _step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def histogram(series: Series, label: str) -> Markup:
    """A histogram of values over mixtures, with a vertical line at the mean of each series. Empty without values."""
    values = {name: _finite(of) for name, of in series.items()}
    everything = np.concatenate([*values.values(), np.empty(0)])
    if not everything.size:
        return Markup()
    low, high = _range(everything)
    longest = max(map(len, values.values()))
    edges = np.linspace(low, high, min(_MOST_BINS, max(8, round(2 * longest**0.5))) + 1)
    counts = {name: np.histogram(of, edges)[0] for name, of in values.items()}
    x, y = _axes(low, high, 0, max(int(of.max()) for of in counts.values()) * 1.06)
    marks = []
    for k, (name, of) in enumerate(values.items()):
        if not of.size:
            continue
        steps = [f"M{_at(x, edges[0])} {_at(y, 0)}"]
        steps += [f"V{_at(y, count)}H{_at(x, edge)}" for count, edge in zip(counts[name], edges[1:], strict=True)]
        marks.append(Mark(f"s{k} area", f"{''.join(steps)}V{_at(y, 0)}Z"))
        mean = _at(x, float(of.mean()))
        marks.append(Mark(f"s{k} mean", f"M{mean} {y.start}V{y.end}"))
    return _figure(f"histogram of {label}", x, y, label, "mixtures", marks)


def scatter(xs: Series, ys: Series, x_label: str, y_label: str, diagonal: bool = False, data: str = "") -> Markup:
    """A scatter plot, one dot for each mixture; `xs` and `ys` have the same series. Empty if no mixture has both values.

    Args:
        diagonal: use the same range for both axes, and draw the line of equal values.
        data: with which the script of the page names the mixture under the pointer.
    """
    pairs = {name: _pairs(xs[name], ys[name]) for name in ys}
    everything = np.concatenate([*pairs.values(), np.empty((0, 2))])
    if not everything.size:
        return Markup()
    across, up = (_range(everything),) * 2 if diagonal else (_range(everything[:, 0]), _range(everything[:, 1]))
    x, y = _axes(*across, *up)
    marks = [Mark("rule", f"M{_at(x, x.low)} {_at(y, x.low)}L{_at(x, x.high)} {_at(y, x.high)}")] if diagonal else []
    for k, points in enumerate(pairs.values()):
        dots = "".join(f"M{_at(x, a)} {_at(y, b)}h0" for a, b in points[:: math.ceil(len(points) / _MOST_POINTS) or 1])
        marks.append(Mark(f"s{k} dots", dots))
    return _figure(f"{y_label} against {x_label}", x, y, x_label, y_label, marks, data)


def curves(epochs: Sequence[int], series: Series, label: str) -> Markup:
    """A line for each series over the epochs, with gaps where values are missing. Empty without values."""
    values = np.concatenate([*(_finite(of) for of in series.values()), np.empty(0)])
    if not values.size:
        return Markup()
    x, y = _axes(min(epochs), max(max(epochs), min(epochs) + 1), *_range(values))
    marks = []
    for k, of in enumerate(series.values()):
        path, pen = [], "M"
        for epoch, value in zip(epochs, of, strict=True):
            if value is None:
                pen = "M"
                continue
            path.append(f"{pen}{_at(x, epoch)} {_at(y, value)}")
            pen = "L"
        lone = "h0" if len(path) == 1 else ""
        marks.append(Mark(f"s{k} line", f"{''.join(path)}{lone}"))
    return _figure(f"{label} by epoch", x, y, "epoch", label, marks, whole=True)


def legend(names: Sequence[str]) -> Markup:
    """The colour and line style of each series."""
    return render("legend.html", names=names)


def plots_of(tests: Sequence[Test]) -> Markup:
    """The section of plots: scatter plots and histograms, one block for each test; empty without tests."""
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


def _axes(left: float, right: float, bottom: float, top: float) -> tuple[Axis, Axis]:
    return Axis(left, right, _LEFT, _WIDTH - _RIGHT), Axis(bottom, top, _HEIGHT - _BOTTOM, _TOP)


def _figure(
    name: str, x: Axis, y: Axis, x_label: str, y_label: str, marks: Sequence[Mark], data: str = "", whole: bool = False
) -> Markup:
    """The frame of a plot around its marks; `whole` leaves out ticks of x between whole numbers."""
    x_ticks = [tick for tick in x.ticks() if not whole or tick == int(tick)]
    grid = [f"M{_at(x, tick)} {y.start}V{y.end}" for tick in x_ticks]
    grid += [f"M{x.start} {_at(y, tick)}H{x.end}" for tick in y.ticks(4)]
    x_text, x_power = _formatter(x.ticks())
    y_text, y_power = _formatter(y.ticks(4))
    return render(
        "plot.html",
        **{"name": name, "width": _WIDTH, "height": _HEIGHT, "grid": "".join(grid), "marks": marks, "data": data},
        axes=" ".join(f"{v:.6g}" for v in (x.low, x.high, x.start, x.end, y.low, y.high, y.start, y.end)),
        x_ticks=[{"at": _at(x, tick), "text": x_text(tick)} for tick in x_ticks],
        y_ticks=[{"at": f"{float(_at(y, tick)) + 4:g}", "text": y_text(tick)} for tick in y.ticks(4)],
        **{"x_ticks_y": y.start + 15, "y_ticks_x": x.start - 6},
        **{"middle_x": f"{(x.start + x.end) / 2:g}", "middle_y": f"{(y.start + y.end) / 2:g}"},
        **{"x_label": x_label + x_power, "y_label": y_label + y_power},
    )


def _finite(values: Sequence[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None], dtype=float)


def _pairs(xs: Sequence[float | None], ys: Sequence[float | None]) -> np.ndarray:
    both = [(a, b) for a, b in zip(xs, ys, strict=True) if a is not None and b is not None]
    return np.array(both, dtype=float).reshape(-1, 2)


def _range(values: np.ndarray) -> tuple[float, float]:
    """A range with a margin around the values, also if all of them are equal."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _formatter(ticks: Sequence[float]) -> tuple[Callable[[float], str], str]:
    """A formatter with as many decimals as distinguish the ticks of an axis, and the power of ten for the axis label.

    >>> text, power = _formatter([0.0018, 0.0019, 0.002])
    >>> text(0.0018), power
    ('1.8', ' · 1e3')
    """
    largest = max(map(abs, ticks), default=0.0)
    power = 0 if not largest or 0.01 <= largest < 1e5 else math.floor(math.log10(largest) + 1e-9)
    step = min((b - a for a, b in pairwise(ticks)), default=largest) / 10**power or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    said = f" · 1e{-power}" if power else ""
    return lambda value: f"{value / 10**power:.{decimals}f}".replace("-", "\N{MINUS SIGN}"), said


def _at(axis: Axis, value: float) -> str:
    return f"{axis.at(value):.1f}".removesuffix(".0")


def _input_scatter(t: int, test: Test, base: str) -> Markup:
    """The improvement over the value of the mixture, which is the metric minus its improvement."""
    runs, gain = test.runs[:SERIES], f"{base}i"
    # Colours depend on the position of a run: either all runs are drawn or none.
    if not all({base, gain} <= run.scores.columns.keys() for run in runs):
        return Markup()
    before = {run.label: _less(run.scores.columns[base], run.scores.columns[gain]) for run in runs}
    gains = {run.label: run.scores.columns[gain] for run in runs}
    data = json.dumps([t, "gain", base, gain])
    return scatter(before, gains, f"{title(base)} of the mixture", title(gain), data=data)


def _less(values: Sequence[float | None], others: Sequence[float | None]) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(values, others, strict=True)]


def _pair_scatter(t: int, test: Test, other: int) -> Markup:
    """One run against the first by SI-SNRi or, where one of them lacks it, by the first metric that both have."""
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
