"""What the results of a study say: each variant's scores, and its effect over the first variant of its group."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.study.plan import Primary, Study
from sepml.study.runs import RunPlace
from sepml.study.scores import AVERAGE, CORRELATION, PEERS, RunScores, read_run_scores
from sepml.study.task import Measure
from sepml.system.csv_files import read_rows
from sepml.system.statistics import PairedEffect, holm, paired_effect


@dataclass(frozen=True)
class StudyResults:
    """The finished runs of a study.

    Attributes:
        scores: variant -> seed -> test -> scores.
        histories: variant -> seed -> the rows of history.csv.
        notes: where each run was computed, and its `minutes`.
    """

    scores: dict[str, dict[int, dict[str, RunScores]]]
    histories: dict[str, dict[int, list[dict[str, float]]]]
    notes: list[dict[str, Any]]


@dataclass(frozen=True)
class VariantScores:
    """The scores of a variant on a test, means over the examples for each seed `(S,)`.

    Attributes:
        means: of the scores that its group compares, each `(S,)`.
        correlation: of the peers' errors, nan for one peer, and where it is not measured.
        predicted_gain: of the average over the peers from it, dB, see `gain_of_average`; `measured_gain` beside it.
    """

    seeds: tuple[int, ...]
    means: tuple[np.ndarray, np.ndarray]
    correlation: float
    predicted_gain: float
    measured_gain: float


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline of its group.

    Attributes:
        of: which scores, see `Group`.
        p_corrected: by Holm's method over all comparisons of the study but the primary one; of that one, the plain p-value.
    """

    group: str
    variant: str
    baseline: str
    test: str
    of: str
    effect: PairedEffect
    is_primary: bool
    p_corrected: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is compared, in whatever group."""
        return self.variant, self.baseline, self.test, self.of


def read_results(study: Study, places: Sequence[RunPlace]) -> StudyResults:
    """The results of the runs that are done.

    Raises:
        SepmlError: a damaged file, or results of other tests.
    """
    results = StudyResults({}, {}, [])
    for place in places:
        if not place.is_done:
            continue
        run, file = place.run, place.result(".csv")
        scores = read_run_scores(file, study.task.wording.columns)
        if absent := [test for test in study.tests if test not in scores]:
            raise SepmlError(f"{file}: holds no scores of the test '{absent[0]}'")
        results.scores.setdefault(run.variant, {})[run.seed] = scores
        results.histories.setdefault(run.variant, {})[run.seed] = _history(place.result(".history.csv"))
        results.notes.append(place.note())
    return results


def _history(file: Path) -> list[dict[str, float]]:
    """The rows of a history.csv.

    Raises:
        SepmlError: it is damaged.
    """
    rows = []
    for line, row in read_rows(file, "a history", ("epoch", "peer")):
        try:
            rows.append({name: float(value) for name, value in row.items()})
        except (TypeError, ValueError) as error:
            raise SepmlError(f"{file}:{line}: {error}, expected a number") from error
    if not rows:
        raise SepmlError(f"{file}: holds no epochs, expected the history of a finished run")
    return rows


def scores_of_variant(results: StudyResults, variant: str, test: str, of: Sequence[str]) -> VariantScores:
    """The scores of a variant on a test, seed by seed.

    Args:
        of: which two, see `Group`.
    """
    runs = {seed: scores[test] for seed, scores in sorted(results.scores[variant].items())}
    one, two, average, peers = (_means(runs.values(), what) for what in (*of, AVERAGE, PEERS))
    count = sum(name.startswith("peer") for name in next(iter(runs.values())).columns)
    unknown = np.array([np.nan])
    of_examples = np.concatenate([scores.columns.get(CORRELATION, unknown) for scores in runs.values()])
    correlation = float(np.nanmean(of_examples)) if np.isfinite(of_examples).any() else np.nan
    predicted = gain_of_average(correlation, count) if np.isfinite(correlation) else np.nan
    return VariantScores(tuple(runs), (one, two), correlation, predicted, float((average - peers).mean()))


def _means(runs: Iterable[RunScores], of: str) -> np.ndarray:
    """Over the examples, for each run `(S,)`."""
    return np.array([scores.of(of).mean() for scores in runs])


def compare_variants(study: Study, results: StudyResults) -> list[Comparison]:
    """All comparisons for which there are runs of equal seeds.

    P-values are corrected over those that are not primary; one that is in several groups is one.
    """
    found = list(_comparisons(study, results))
    tested = {each.key: each.effect.p_value for each in found if not each.is_primary}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [replace(each, p_corrected=corrected.get(each.key, each.effect.p_value)) for each in found]


def _comparisons(study: Study, results: StudyResults) -> Iterator[Comparison]:
    first = None
    for title, group in study.groups.items():
        baseline, *variants = group.variants
        for variant in variants:
            shared = sorted(results.scores.get(variant, {}).keys() & results.scores.get(baseline, {}).keys())
            for test in study.tests if shared else ():
                pair = [[results.scores[name][seed][test] for seed in shared] for name in (variant, baseline)]
                _require_same_examples(test, [*pair[0], *pair[1]])
                for what in group.of:
                    a, b = (np.stack([scores.of(what) for scores in runs]) for runs in pair)
                    belongs = pair[0][0].groups
                    effect = paired_effect(a, b, belongs if all(belongs) else None)
                    each = Comparison(title, variant, baseline, test, what, effect, False)
                    if first is None and study.primary == Primary(variant, test, what):
                        first = each.key
                    yield replace(each, is_primary=each.key == first)


def _require_same_examples(test: str, runs: Sequence[RunScores]) -> None:
    if any(scores.examples != runs[0].examples for scores in runs[1:]):
        raise SepmlError(f"runs were scored on different data of the test '{test}'; delete the results of the older ones")


def gain_of_average(correlation: float, peers: int) -> float:
    """The gain of the average of peers over one of them in dB, where their errors are of equal power and so correlated.

    >>> round(gain_of_average(0.0, 2), 2), round(gain_of_average(1.0, 2), 2)
    (3.01, 0.0)
    """
    return 10 * math.log10(peers / (1 + (peers - 1) * correlation))


def summary_of(study: Study, comparisons: Sequence[Comparison]) -> str:
    """What the primary comparison says, as a sentence; empty where there is none."""
    chosen = next((each for each in comparisons if each.is_primary), None)
    if chosen is None:
        return "" if study.primary is None else "The primary comparison has no runs of equal seeds yet."
    effect, measure = chosen.effect, study.measures[chosen.test]
    start = f"Primary comparison, decided on beforehand: {chosen.variant} minus {chosen.baseline}, {chosen.of}, {chosen.test}"
    unit = f" {measure.unit}" if measure.unit else ""
    if effect.interval is None or effect.p_value is None:
        return f"{start}: {effect.difference:+.3f}{unit}, one seed."
    low, high = effect.interval
    figures = f"{effect.difference:+.3f}{unit}, 95 % interval {low:+.3f} to {high:+.3f}{unit}, p = {effect.p_value:.2g}"
    number = f"{effect.seeds} seeds, {effect.mixtures} {measure.items}"
    return f"{start}: {figures} ({number}); {_verdict(measure, low, high, effect.p_value)}."


def _verdict(measure: Measure, low: float, high: float, p_value: float) -> str:
    """What an interval and a p-value say together."""
    if measure.falls:
        low, high = -high, -low
    if low <= 0 <= high:
        unit = f" {measure.unit}" if measure.unit else ""
        ends = f"gains above {max(high, 0):.2f}{unit} and losses above {max(-low, 0):.2f}{unit}"
        return f"no effect is shown; {ends} are ruled out"
    which = "gain" if low > 0 else "loss"
    return f"the {which} is significant" if p_value < 0.05 else f"the interval shows a {which}, the test over seeds does not"
