"""What the results of a study say: each variant's scores, and its effect over the first variant of its group."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.averaging import gain_of_average
from sepml.speech.results.statistics import PairedEffect, holm, paired_effect
from sepml.speech.study.plan import Primary, Study
from sepml.speech.study.run_scores import AVERAGE, CORRELATION, PEERS, RunScores, read_run_scores
from sepml.speech.study.runs import RunPlace
from sepml.system.csv_files import read_rows


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
    """The scores of a variant on a test: SI-SNRi, dB, means over the mixtures for each seed `(S,)`.

    Attributes:
        means: of the scores that its group compares, each `(S,)`.
        correlation: of the peers' errors, nan for one peer.
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
        scores = read_run_scores(file)
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
    of_mixtures = np.concatenate([scores.columns[CORRELATION] for scores in runs.values()])
    correlation = float(np.nanmean(of_mixtures)) if np.isfinite(of_mixtures).any() else np.nan
    predicted = gain_of_average(correlation, count) if np.isfinite(correlation) else np.nan
    return VariantScores(tuple(runs), (one, two), correlation, predicted, float((average - peers).mean()))


def _means(runs: Iterable[RunScores], of: str) -> np.ndarray:
    """Over the mixtures, for each run `(S,)`."""
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
                _require_same_mixtures(test, [*pair[0], *pair[1]])
                for what in group.of:
                    a, b = (np.stack([scores.of(what) for scores in runs]) for runs in pair)
                    speakers = pair[0][0].speakers
                    effect = paired_effect(a, b, speakers if all(speakers) else None)
                    each = Comparison(title, variant, baseline, test, what, effect, False)
                    if first is None and study.primary == Primary(variant, test, what):
                        first = each.key
                    yield replace(each, is_primary=each.key == first)


def _require_same_mixtures(test: str, runs: Sequence[RunScores]) -> None:
    if any(scores.mixtures != runs[0].mixtures for scores in runs[1:]):
        raise SepmlError(f"runs were scored on different mixtures of the test '{test}'; delete the results of the older ones")


def summary_of(study: Study, comparisons: Sequence[Comparison]) -> str:
    """What the primary comparison says, as a sentence; empty where there is none."""
    chosen = next((each for each in comparisons if each.is_primary), None)
    if chosen is None:
        return "" if study.primary is None else "The primary comparison has no runs of equal seeds yet."
    effect = chosen.effect
    start = f"Primary comparison, decided on beforehand: {chosen.variant} minus {chosen.baseline}, {chosen.of}, {chosen.test}"
    if effect.interval is None or effect.p_value is None:
        return f"{start}: {effect.difference:+.3f} dB, one seed."
    low, high = effect.interval
    figures = f"{effect.difference:+.3f} dB, 95 % interval {low:+.3f} to {high:+.3f} dB, p = {effect.p_value:.2g}"
    return f"{start}: {figures} ({effect.seeds} seeds, {effect.mixtures} mixtures); {_verdict(low, high, effect.p_value)}."


def _verdict(low: float, high: float, p_value: float) -> str:
    """What an interval and a p-value say together."""
    if low <= 0 <= high:
        return f"no effect is shown; gains above {max(high, 0):.2f} dB and losses above {max(-low, 0):.2f} dB are ruled out"
    which = "gain" if low > 0 else "loss"
    return f"the {which} is significant" if p_value < 0.05 else f"the interval shows a {which}, the test over seeds does not"
