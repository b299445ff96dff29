"""Plots of a study: effects with every seed, and curves over the epochs with bands; SVG by matplotlib."""

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sepml.pages.style import PALETTES, SERIES_COLOURS, in_both_schemes
from sepml.study.comparisons import Comparison, StudyResults
from sepml.study.task import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 5.2
_COLOURS = PALETTES["light"]
_DASHES = ("-", "--", ":", "-.")
_MOST_COLUMNS = 3
"""Of a legend."""


def effects_figure(comparisons: Sequence[Comparison], measure: Measure) -> bytes:
    """The effects of the variants of a group, a row each: every seed a dot, the mean with its 95 % interval; SVG."""

    def draw(axes: "Axes") -> None:
        for row, each in enumerate(reversed(comparisons)):
            axes.plot(each.effect.by_seed, np.full(each.effect.seeds, row) - 0.18, ".", color=_COLOURS["soft"], alpha=0.6)
            low, high = each.effect.interval or (each.effect.difference,) * 2
            ends = [[each.effect.difference - low], [high - each.effect.difference]]
            axes.errorbar(each.effect.difference, row + 0.1, xerr=ends, fmt="o", color=_COLOURS["s0"], capsize=4)
        axes.set_yticks(range(len(comparisons)), [each.variant for each in reversed(comparisons)])
        axes.set_ylim(-0.6, len(comparisons) - 0.4)
        axes.axvline(0, color=_COLOURS["ink"], linewidth=0.8)
        axes.set_xlabel(measure.with_unit(f"{measure.name} minus {comparisons[0].baseline}"))

    return _svg(draw, 0.9 + 0.42 * len(comparisons))


def curves_figure(results: StudyResults, variants: Sequence[str], column: str, label: str) -> bytes | None:
    """A column of history.csv over the epochs, the mean over seeds and peers, with the range of the seeds' means as a band.

    Args:
        column: its name, or the start of it (`valid_`).

    Returns:
        SVG; None where no run has a value.
    """
    series = {name: values for name in variants if (values := _by_epoch(results, name, column)) is not None}
    if not series:
        return None

    from matplotlib.ticker import MaxNLocator

    def draw(axes: "Axes") -> None:
        for name, values in series.items():
            epochs = np.arange(1, values.shape[1] + 1)
            # A variant has its colour and its dashes in every figure.
            place = list(variants).index(name)
            colour = _COLOURS[f"s{place % SERIES_COLOURS}"]
            axes.plot(epochs, values.mean(0), color=colour, linestyle=_DASHES[place % len(_DASHES)], linewidth=1.8, label=name)
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="epoch")
        axes.set_title(label, loc="left", fontsize="medium")
        axes.grid(color=_COLOURS["edge"], linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        columns = min(len(series), _MOST_COLUMNS)
        # Below the axes, where it covers no line.
        axes.figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize="small")

    return _svg(draw, 3.4 + 0.2 * -(-len(series) // _MOST_COLUMNS))


def _by_epoch(results: StudyResults, variant: str, column: str) -> np.ndarray | None:
    """The mean over the peers, `(S, epochs)`; None where a run has no value in some epoch."""
    rows = []
    for history in results.histories.get(variant, {}).values():
        name = next((name for name in history[0] if name == column or (column.endswith("_") and name.startswith(column))), None)
        by_epoch: dict[int, list[float]] = {}
        for row in history:
            value = row[name] if name else math.nan
            by_epoch.setdefault(int(row["epoch"]), []).extend([value] if math.isfinite(value) else [])
        if not all(by_epoch.values()):
            return None
        rows.append([float(np.mean(values)) for _, values in sorted(by_epoch.items())])
    shortest = min(map(len, rows), default=0)
    return np.array([row[:shortest] for row in rows]) if shortest else None


def _svg(draw: "Callable[[Axes], None]", height: float) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = _COLOURS["ink"]
    drawn: Any = {
        "text.color": ink,
        "axes.labelcolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.edgecolor": _COLOURS["soft"],
    }
    content = io.StringIO()
    # Names of parts are random otherwise, and there is a date: the same results give the same file.
    with rc_context({**drawn, "svg.hashsalt": "sepml", "axes.spines.top": False, "axes.spines.right": False, "font.size": 11}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure.subplots())
        # The page is the background.
        figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)
    return in_both_schemes(content.getvalue()).encode()
