"""The report of a study: RESULTS.md, one page, and LaTeX, all from the same tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sepml.pages import data_uri, read_template, render, script_hash
from sepml.pages.style import page_style
from sepml.study.comparisons import Comparison, StudyResults, compare_variants, scores_of_variant, summary_of
from sepml.study.figures import curves_figure, effects_figure
from sepml.study.machines import where_computed
from sepml.study.plan import Study
from sepml.study.scores import CORRELATION
from sepml.study.task import Measure
from sepml.system.files import write_text
from sepml.system.statistics import mixed_model
from sepml.system.tables import markdown
from sepml.version import __version__

_TESTS = ("p", "p (Holm)", "better runs", "IQM")
_CURVES = {"valid_": "validation", "gate_open": "gate open, fraction", "mimic_share": "mimic loss's part of the gradient"}
_HOW = (
    "{scores}, means over {items}; +- is the standard deviation over seeds. Differences are paired by seed and {item}, "
    "intervals are Student's t over seeds (two-level: percentiles where seeds, and for each seed {drawn}, are drawn again, as "
    "for another test), p is the two-sided sign-flip test over seeds, corrected by Holm's method over all comparisons but the "
    "primary one. Better runs: the probability that a run of the variant scores higher than one of the baseline. IQM: "
    "difference of interquartile means; none of scores that are right or wrong."
)
_CORRELATION = " Error correlation: of the peers' errors, from which the gain of averaging is predicted."


@dataclass(frozen=True)
class StudyTable:
    """The variants of a group on a test: rows of cells; `primary` is the row of the primary comparison, or None."""

    group: str
    test: str
    measure: Measure
    head: list[str]
    rows: list[list[str]]
    primary: int | None
    comparisons: list[Comparison]


def write_study_report(study: Study, results: StudyResults, out: Path, latex: Path | None = None) -> list[Path]:
    """Write RESULTS.md and study.html about the runs that are done, and the tables as LaTeX.

    Returns:
        the files.
    """
    comparisons = compare_variants(study, results)
    tables = [
        _table(study, results, comparisons, group, test)
        for group, of in study.groups.items()
        for test in study.tests
        if any(name in results.scores for name in of.variants)
    ]
    summary = " ".join(part for part in (summary_of(study, comparisons), _check(study, results, comparisons)) if part)
    files = [out / "RESULTS.md", out / "study.html"]
    how = f"{_how(study, tables)} {where_computed(results.notes)}"
    write_text(files[0], _text(study, summary, how, tables))
    write_text(files[1], _page(study, results, summary, how, tables))
    if latex:
        write_text(latex, "\n".join(map(_latex, tables)))
        files.append(latex)
    return files


def _how(study: Study, tables: Sequence[StudyTable]) -> str:
    """How the figures of the tables were made."""
    measure, wording = next(iter(study.measures.values())), study.task.wording
    said = _HOW.format(scores=wording.scores, items=measure.items, item=measure.item, drawn=wording.drawn)
    return said + (_CORRELATION if any(_averaging(each.measure)[0] in each.head for each in tables) else "")


def _averaging(measure: Measure) -> tuple[str, str, str]:
    """The heads of the columns about the peers' average."""
    return "error correlation", measure.with_unit("gain of averaging"), measure.with_unit("predicted")


def _head(study: Study, group: str, measure: Measure) -> list[str]:
    """The heads of a group's table but for those about the average."""
    first, second = study.groups[group].of
    baseline = study.groups[group].variants[0]
    levels = [measure.with_unit(first), measure.with_unit(second), measure.with_unit(f"{first} minus {baseline}")]
    other = [measure.with_unit(f"{second} minus {baseline}"), "95 %", "p (Holm)"]
    return ["variant", "seeds", *levels, "95 %", "95 %, two-level", *_TESTS, *other]


def _table(study: Study, results: StudyResults, comparisons: Sequence[Comparison], group: str, test: str) -> StudyTable:
    first, second = study.groups[group].of
    baseline, *variants = study.groups[group].variants
    measure = study.measures[test]
    head = _head(study, group, measure)
    there = [name for name in study.groups[group].variants if name in results.scores]
    levels = {name: scores_of_variant(results, name, test, (first, second)) for name in there}
    correlated = any(CORRELATION in scores[test].columns for name in there for scores in results.scores[name].values())
    head += _averaging(measure) if correlated else ()
    chosen = [each for each in comparisons if (each.group, each.test) == (group, test)]
    rows: list[list[str]] = []
    primary = None
    for variant in (baseline, *variants):
        if variant not in levels:
            continue
        level = levels[variant]
        of = {each.of: each for each in chosen if each.variant == variant}
        if any(each.is_primary for each in of.values()):
            primary = len(rows)
        paired = [each.effect.seeds for each in of.values()]
        # Differences are of the seeds that both variants have.
        seeds = f"{len(level.seeds)} ({paired[0]} paired)" if paired and paired[0] < len(level.seeds) else str(len(level.seeds))
        cells = [variant, seeds, *map(_mean, level.means)]
        cells += [*_effect(of.get(first), True), *_effect(of.get(second), False)]
        averaging = [_number(level.correlation), _number(level.measured_gain), _number(level.predicted_gain)]
        rows.append([*cells, *(averaging if correlated else ())])
    return StudyTable(group, test, measure, head, rows, primary, [each for each in chosen if each.of == first])


def _effect(comparison: Comparison | None, whole: bool) -> list[str]:
    """The cells of a comparison: those of the first scores; or, not `whole`, of the second."""
    if comparison is None:
        return [""] * (7 if whole else 3)
    effect = comparison.effect
    start = [f"{effect.difference:+.3f}", _interval(effect.interval)]
    corrected = "primary" if comparison.is_primary else _p(comparison.p_corrected)
    if not whole:
        return [*start, corrected]
    tests = [_p(effect.p_value), corrected, f"{effect.probability:.2f}", "" if effect.iqm is None else f"{effect.iqm:+.3f}"]
    return [*start, _interval(effect.interval_two_level), *tests]


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def _mean(by_seed: Any) -> str:
    spread = f" +- {by_seed.std(ddof=1):.3f}" if len(by_seed) > 1 else ""
    return f"{by_seed.mean():.3f}{spread}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _check(study: Study, results: StudyResults, comparisons: Sequence[Comparison]) -> str:
    """The mixed model of the primary comparison, as a sentence."""
    several = (each for each in comparisons if each.effect.seeds > 1 and each.effect.mixtures > 1)
    chosen = next((each for each in several if each.is_primary), None)
    if chosen is None:
        return ""
    seeds = sorted(results.scores[chosen.variant].keys() & results.scores[chosen.baseline].keys())
    one, two = (
        np.stack([results.scores[name][seed][chosen.test].of(chosen.of) for seed in seeds])
        for name in (chosen.variant, chosen.baseline)
    )
    model = mixed_model(one, two)
    if model.estimate is None or model.interval is None:
        return f"({model.note}.)"
    low, high = model.interval
    measure = study.measures[chosen.test]
    unit = f" {measure.unit}" if measure.unit else ""
    effects = f"seed and {measure.item} as random effects"
    return f"A mixed model with {effects} gives {model.estimate:+.3f}{unit}, {low:+.3f} to {high:+.3f}."


def _text(study: Study, summary: str, how: str, tables: Sequence[StudyTable]) -> str:
    parts = [f"# {study.source.stem}", summary, how]
    for table in tables:
        title = f"{table.group}, {table.test}" if table.group else table.test
        parts.append(f"## {title}\n\n{markdown([table.head, *table.rows])}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _page(study: Study, results: StudyResults, summary: str, how: str, tables: Sequence[StudyTable]) -> str:
    groups, titles = [], study.task.wording.curves or _CURVES
    for group, of in study.groups.items():
        of_group = [table for table in tables if table.group == group]
        figures = ((title, curves_figure(results, of.variants, column, title)) for column, title in titles.items())
        curves = [{"title": title, "image": data_uri("image/svg+xml", image)} for title, image in figures if image]
        groups.append({"title": group or "All variants", "tables": [*map(_shown, of_group)], "curves": curves})
    script = read_template("study.js") + read_template("tables.js")
    return render(
        "study.html",
        **{"heading": study.source.stem, "summary": summary, "how": how, "groups": groups, "version": __version__},
        date=datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M"),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{script_hash(script)}'",
        style=page_style(),
        script=script,
    )


def _shown(table: StudyTable) -> dict[str, Any]:
    figure = data_uri("image/svg+xml", effects_figure(table.comparisons, table.measure)) if table.comparisons else ""
    rows = [{"cells": cells, "is_primary": n == table.primary} for n, cells in enumerate(table.rows)]
    return {"title": table.test, "head": table.head, "rows": rows, "figure": figure}


def _latex(table: StudyTable) -> str:
    """A table in the style of the package booktabs, by pandas."""
    import pandas

    frame = pandas.DataFrame([[cell.replace("+-", r"±") for cell in row] for row in table.rows], columns=table.head)
    caption = f"{table.group}, {table.test}" if table.group else table.test
    return frame.to_latex(index=False, escape=True, caption=caption, column_format="l" + "r" * (len(table.head) - 1))
