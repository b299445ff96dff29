"""Statistics of a comparison over seeds: two variants whose runs are paired by seed, and whose scores by mixture.

Scores are `(S, M)`: S seeds, M mixtures of one test. The seed is what varies when a training is repeated, so intervals and
p-values are about seeds; resampling mixtures alone leaves out that variation. With 8 seeds a percentile bootstrap is too narrow
(it covers about 87 % instead of 95 %), Student's t is not, which simulations in the tests show.
"""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from sepml.errors import SepmlError
from sepml.system.extras import needs_extra

RESAMPLES = 2000
LEVEL = 0.95
DRAWS_AT_ONCE = 1 << 20
"""Random numbers that are in memory at one time; all of 3,000 mixtures times 2,000 resamples would take 100 MB."""
PERMUTATIONS = 9999
MOST_MODELLED = 500
"""Mixtures up to which a mixed model is fitted: time and memory grow with their square and more."""


@dataclass(frozen=True)
class PairedEffect:
    """The difference between two variants, A - B, in the unit of the scores.

    Attributes:
        difference: the mean over seeds and mixtures.
        by_seed: the mean over mixtures for each seed, `(S,)`.
        interval: 95 %, by Student's t over the seeds; None for one seed.
        interval_two_level: 95 %, percentiles where seeds and, for each, mixtures (or groups of them) are drawn with
            replacement; None for one seed. It says how the result would vary with other seeds and another test.
        p_value: two-sided sign-flip test over the seeds, which cannot fall below 2 / 2^S; None for one seed.
        probability: that a run of A scores higher than a run of B: over all pairs of runs, equal ones count half.
        iqm: the difference of the interquartile means over all scores, which outliers do not move; None where scores have no
            more than two values, such as right and wrong, of which it is no mean.
        seeds, mixtures: how many.
    """

    difference: float
    by_seed: tuple[float, ...]
    interval: tuple[float, float] | None
    interval_two_level: tuple[float, float] | None
    p_value: float | None
    probability: float
    iqm: float | None
    seeds: int
    mixtures: int


@dataclass(frozen=True)
class MixedModel:
    """A mixed linear model of the difference with seed and mixture as crossed random effects, as a check of a `PairedEffect`.

    Attributes:
        estimate: of the difference; interval: 95 %; p_value: two-sided, of Wald's test, which is too small for few seeds.
        note: why there are no figures; empty where there are.
    """

    estimate: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    note: str = ""


def paired_effect(a: np.ndarray, b: np.ndarray, groups: Sequence[Hashable] | None = None, seed: int = 0) -> PairedEffect:
    """The effect of A over B.

    Args:
        a, b: scores `(S, M)` of the same seeds and mixtures.
        groups: for each mixture a label such as its speakers; mixtures of a group are resampled together.
        seed: of the resampling.

    Raises:
        SepmlError: scores of different shapes, or that are not finite.

    Source: the sign-flip test is Fisher's randomisation test; the probability of improvement and the interquartile mean are
    those of Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise SepmlError(f"scores of {a.shape} and {b.shape} (seeds, mixtures) cannot be paired, expected two equal shapes")
    if not (np.isfinite(a) & np.isfinite(b)).all():
        n_seed, mixture = np.argwhere(~(np.isfinite(a) & np.isfinite(b)))[0]
        raise SepmlError(f"seed number {n_seed + 1} has no finite score for mixture number {mixture + 1}")
    differences = a - b
    by_seed = differences.mean(1)
    runs = [scores.mean(1) for scores in (a, b)]
    wins = np.sign(runs[0][:, None] - runs[1][None])
    several = len(by_seed) > 1
    return PairedEffect(
        difference=float(by_seed.mean()),
        by_seed=tuple(by_seed.tolist()),
        interval=student_interval_95(by_seed) if several else None,
        interval_two_level=_two_level(differences, groups, seed) if several else None,
        p_value=paired_p_value(by_seed),
        probability=float((wins.mean() + 1) / 2),
        iqm=_interquartile_difference(a, b),
        seeds=a.shape[0],
        mixtures=a.shape[1],
    )


def _interquartile_difference(a: np.ndarray, b: np.ndarray) -> float | None:
    from scipy import stats

    if len(np.unique([a, b])) <= 2:
        return None
    return float(stats.trim_mean(a, 0.25, axis=None) - stats.trim_mean(b, 0.25, axis=None))


def interval_of_mean(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of the mean.

    Args:
        values: (n,) one for each mixture; mixtures are drawn with replacement.
        seed: of the draws.

    Returns:
        its two ends, which do not depend on the order of the values; None for fewer than two values.

    Source: Efron, Tibshirani, "An introduction to the bootstrap", 1993; as `scipy.stats.bootstrap(method="percentile")`.
    """
    if len(values) < 2:
        return None
    values = np.sort(values)
    rng = np.random.default_rng(seed)
    each = max(1, DRAWS_AT_ONCE // len(values))
    means = [
        values[rng.integers(0, len(values), (min(each, resamples - done), len(values)))].mean(1)
        for done in range(0, resamples, each)
    ]
    low, high = np.percentile(np.concatenate(means), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def student_interval_95(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of values `(n,)` by Student's t; both ends are the mean where all are equal."""
    from scipy import stats

    error = stats.sem(values)
    if not error:
        return float(values[0]), float(values[0])
    low, high = stats.t.interval(LEVEL, len(values) - 1, values.mean(), error)
    return float(low), float(high)


def paired_p_value(differences: np.ndarray, permutations: int = PERMUTATIONS, seed: int = 0) -> float | None:
    """The p-value of a two-sided sign-flip test of the mean of paired differences, by mixture or by seed.

    Without an effect, a difference has either sign with equal probability. The test is about the mean, which is
    what the tables report, and assumes no distribution; a t-test assumes a normal one, and Wilcoxon's test is about ranks.
    All sign flips are tried if there are at most `permutations` of them, otherwise that many random ones. The result is that
    of `scipy.stats.permutation_test(permutation_type="samples")`, in less time.

    Args:
        differences: (n,) one for each mixture, or for each seed.

    Returns:
        the two-sided p-value, or None for fewer than two differences.
    """
    if len(differences) < 2:
        return None
    if not differences.any():
        return 1.0
    # Sorted, so that the result does not depend on the order of the mixtures.
    differences = np.sort(differences)
    observed, count = abs(differences.mean()), len(differences)
    # Values that differ by rounding only count as equal.
    least = observed * (1 - 1e-9)
    if 2**count <= permutations:
        every = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float(np.mean(np.abs(every @ differences) >= least * count))
    rng = np.random.default_rng(seed)
    each = max(1, DRAWS_AT_ONCE // count)
    as_large = 1
    for done in range(0, permutations, each):
        signs = 1.0 - 2 * rng.integers(0, 2, (min(each, permutations - done), count), dtype=np.int8)
        as_large += int(np.count_nonzero(np.abs(signs @ differences) >= least * count))
    return as_large / (permutations + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values of several comparisons, corrected by Holm's method; None stays.

    Raises:
        SepmlError: statsmodels is not installed.
    """
    with needs_extra("study", "a comparison of groups of runs"):
        from statsmodels.stats.multitest import multipletests
    known = [value for value in p_values if value is not None]
    corrected = iter(multipletests(known, method="holm")[1].tolist() if known else [])
    return [None if value is None else next(corrected) for value in p_values]


def mixed_model(a: np.ndarray, b: np.ndarray) -> MixedModel:
    """Fit `difference ~ 1 + (1 | seed) + (1 | mixture)` to scores `(S, M)`; not to more than `MOST_MODELLED` mixtures."""
    if np.shape(a)[1] > MOST_MODELLED:
        return MixedModel(None, None, None, f"no mixed model is fitted to more than {MOST_MODELLED} examples")
    differences = np.asarray(a, float) - np.asarray(b, float)
    if np.ptp(differences) == 0:
        return MixedModel(None, None, None, "no mixed model is fitted to differences that are all the same")
    import pandas
    import statsmodels.formula.api as formulas
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    seeds, mixtures = np.indices(differences.shape)
    table = pandas.DataFrame({"y": differences.ravel(), "seed": seeds.ravel(), "mixture": mixtures.ravel(), "all": 1})
    parts = {"seed": "0 + C(seed)", "mixture": "0 + C(mixture)"}
    model = formulas.mixedlm("y ~ 1", table, groups="all", vc_formula=parts)
    try:
        with warnings.catch_warnings():
            # A variance of 0, on the boundary of what it may be, is a result.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit = model.fit()
    except (np.linalg.LinAlgError, ValueError) as error:
        return MixedModel(None, None, None, f"the mixed model cannot be fitted: {str(error).splitlines()[0]}")
    if not fit.converged:
        return MixedModel(None, None, None, "the mixed model does not converge")
    low, high = fit.conf_int(alpha=1 - LEVEL).loc["Intercept"]
    return MixedModel(float(fit.params["Intercept"]), (float(low), float(high)), float(fit.pvalues["Intercept"]))


def _two_level(differences: np.ndarray, groups: Sequence[Hashable] | None, seed: int) -> tuple[float, float]:
    """The percentile interval of the mean where seeds, and for each of them groups of mixtures, are drawn."""
    rng = np.random.default_rng(seed)
    labels = range(differences.shape[1]) if groups is None else groups
    _, of = np.unique([str(label) for label in labels], return_inverse=True)
    sizes = np.bincount(of)
    sums = np.stack([np.bincount(of, row) for row in differences])
    means = np.empty(RESAMPLES)
    for n in range(RESAMPLES):
        rows = rng.integers(0, len(sums), len(sums))
        drawn = rng.integers(0, len(sizes), (len(rows), len(sizes)))
        means[n] = sums[rows[:, None], drawn].sum() / sizes[drawn].sum()
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
