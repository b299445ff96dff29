"""Plots of a report as inline SVG: histograms, scatters, curves. Colours and line styles come from the page's style sheet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

SERIES = 6
"""Series that colour and line style tell apart."""
_WIDTH, _HEIGHT = 400, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 42
_MOST_BINS = 30
_MOST_POINTS = 5000
Series = dict[str, Sequence[float | None]]


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


def histogram(series: Series, label: str) -> str:
    """How many mixtures have which value; the upright line is a series' mean. Empty text where there is no value."""
    values = {name: _finite(of) for name, of in series.items()}
    everything = np.concatenate([*values.values(), np.empty(0)])
    if not everything.size:
        return ""
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
        marks.append(f'<path class="s{k} area" d="{"".join(steps)}V{_at(y, 0)}Z"/>')
        mean = _at(x, float(of.mean()))
        marks.append(f'<path class="s{k} mean" d="M{mean} {y.start}V{y.end}"/>')
    return _figure(f"histogram of {label}", x, y, label, "mixtures", "".join(marks))


def scatter(xs: Series, ys: Series, x_label: str, y_label: str, diagonal: bool = False, data: str = "") -> str:
    """One dot a mixture; series by name in both. Empty text where no mixture has both values.

    Args:
        diagonal: the same axis twice, and the line of equal values.
        data: what the page's script needs to name the mixture under the pointer.
    """
    pairs = {name: _pairs(xs[name], ys[name]) for name in ys}
    everything = np.concatenate([*pairs.values(), np.empty((0, 2))])
    if not everything.size:
        return ""
    across, up = (_range(everything),) * 2 if diagonal else (_range(everything[:, 0]), _range(everything[:, 1]))
    x, y = _axes(*across, *up)
    marks = [f'<path class="rule" d="M{_at(x, x.low)} {_at(y, x.low)}L{_at(x, x.high)} {_at(y, x.high)}"/>'] if diagonal else []
    for k, points in enumerate(pairs.values()):
        dots = "".join(f"M{_at(x, a)} {_at(y, b)}h0" for a, b in points[:: math.ceil(len(points) / _MOST_POINTS) or 1])
        marks.append(f'<path class="s{k} dots" d="{dots}"/>')
    place = " ".join(f"{v:.6g}" for v in (x.low, x.high, x.start, x.end, y.low, y.high, y.start, y.end))
    hover = f' data-plot="{escape(data)}" data-axes="{place}"' if data else ""
    return _figure(f"{y_label} against {x_label}", x, y, x_label, y_label, "".join(marks), hover)


def curves(epochs: Sequence[int], series: Series, label: str) -> str:
    """A line a series over the epochs, broken where a value is missing. Empty text where there is no value."""
    values = np.concatenate([*(_finite(of) for of in series.values()), np.empty(0)])
    if not values.size:
        return ""
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
        marks.append(f'<path class="s{k} line" d="{"".join(path)}{lone}"/>')
    return _figure(f"{label} by epoch", x, y, "epoch", label, "".join(marks), whole=True)


def legend(names: Sequence[str]) -> str:
    """Which colour and line is which series."""
    items = "".join(
        f'<li><svg viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">'
        f'<path class="s{k} line" d="M1 5H27"/></svg>{escape(name)}</li>'
        for k, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _axes(left: float, right: float, bottom: float, top: float) -> tuple[Axis, Axis]:
    return Axis(left, right, _LEFT, _WIDTH - _RIGHT), Axis(bottom, top, _HEIGHT - _BOTTOM, _TOP)


def _figure(name: str, x: Axis, y: Axis, x_label: str, y_label: str, marks: str, more: str = "", whole: bool = False) -> str:
    """The frame of a plot around its marks."""
    lines, words = [], []
    text, across = _formatter(x.ticks())
    for tick in x.ticks():
        if not whole or tick == int(tick):
            lines.append(f"M{_at(x, tick)} {y.start}V{y.end}")
            words.append(f'<text x="{_at(x, tick)}" y="{y.start + 15}" text-anchor="middle">{text(tick)}</text>')
    text, up = _formatter(y.ticks(4))
    for tick in y.ticks(4):
        lines.append(f"M{x.start} {_at(y, tick)}H{x.end}")
        words.append(f'<text x="{x.start - 6}" y="{float(_at(y, tick)) + 4:g}" text-anchor="end">{text(tick)}</text>')
    middle = (y.start + y.end) / 2
    words.append(
        f'<text x="{(x.start + x.end) / 2:g}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label + across)}</text>'
    )
    words.append(
        f'<text x="11" y="{middle:g}" text-anchor="middle" transform="rotate(-90 11 {middle:g})">{escape(y_label + up)}</text>'
    )
    return (
        f'<figure class="plot"{more}><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">'
        f'<path class="grid" d="{"".join(lines)}"/>{marks}{"".join(words)}</svg></figure>'
    )


def _finite(values: Sequence[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None], dtype=float)


def _pairs(xs: Sequence[float | None], ys: Sequence[float | None]) -> np.ndarray:
    both = [(a, b) for a, b in zip(xs, ys, strict=True) if a is not None and b is not None]
    return np.array(both, dtype=float).reshape(-1, 2)


def _range(values: np.ndarray) -> tuple[float, float]:
    """A range with a margin around the values, also where they are all the same."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _formatter(ticks: Sequence[float]) -> tuple[Callable[[float], str], str]:
    """Numbers of one axis with the decimals that tell its ticks apart, and the power of ten that its name has to say.

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
